'use strict';
'require baseclass';
'require ds4relay.page as page';
'require ds4relay.words as words';

/* What a VPS that is paired with this router says about this router's forwards. */

/* One message for a relay, `null` where all is well. */
function alert(relay) {
	const { state, problems, code, args, text } = relay.push ?? {},
	      why = (code == null) ? text : words.say({ code, args });

	return {
		pending: [ 'notice', _('Relay %s: the VPS is being told'), [ _('This takes some seconds.') ] ],
		refused: [
			'error', _('Relay %s: the VPS does not take this'),
			(problems ?? []).map((problem) => words.problem(problem))
				.concat([ _('It goes on with what it took before. Correct it, then save and apply.') ])
		],
		failed: [
			'warning', _('Relay %s: the VPS could not be told'),
			[ why, _('This is tried again each minute.') ].filter((line) => line)
		]
	}[state] ?? null;
}

return baseclass.extend({
	/* What is to be said of relays of a status, as text that can be compared. */
	key: (relays) => JSON.stringify(relays.map((relay) => [ relay.name, alert(relay) ])),

	/* The same as messages. */
	render: (relays) => relays.flatMap((relay) => {
		const [ kind, title, sentences ] = alert(relay) ?? [];

		return kind ? [ page.alert(kind, words.fill(title, [ relay.name ]), sentences) ] : [];
	})
});
