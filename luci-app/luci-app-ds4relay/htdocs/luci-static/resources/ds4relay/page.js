'use strict';
'require baseclass';
'require ds4relay.words as words';

/* What the pages have in common. */

return baseclass.extend({
	/* The pages' style sheet, once. */
	style() {
		if (!document.querySelector('link[href*="ds4relay.css"]'))
			document.head.appendChild(E('link', {
				'rel': 'stylesheet', 'type': 'text/css', 'href': L.resource('ds4relay/ds4relay.css')
			}));
	},

	/* A sentence, where what stands between backquotes is a command to type. */
	sentence(text) {
		return String(text).split('`').map((part, i) => ((i % 2) ? E('code', [ part ]) : part));
	},

	/* A sentence that begins with a word, not with a name or a command, begins with a capital letter. */
	capital: (text) => String(text).replace(/^\p{Ll}(?=\p{Ll}* )/u, (letter) => letter.toUpperCase()),

	/* Commands, for who wants to see them. */
	commands(list) {
		return E('details', [
			E('summary', [ words.fill(_('Commands: %d'), [ list.length ]) ]), E('pre', [ list.join('\n') ])
		]);
	},

	/* Where the service's messages are. LuCI's log cannot be opened with a filter. */
	log() {
		return E('div', { 'class': 'ds4-log' }, [
			E('span', this.sentence(_('Its messages are the lines with `ds4relay` in the log:'))), ' ',
			E('a', { 'href': L.url('admin/status/logs/syslog') }, [ _('System Log') ])
		]);
	},

	/* A message of kind success, warning, error or notice, with sentences below its title, each a line. */
	alert(kind, title, sentences, buttons) {
		const lines = (sentences ?? []).flatMap((text) => String(text).split('\n')).map(this.capital);

		return E('div', {
			'class': 'alert-message ' + kind + ' ds4-alert', 'role': (kind == 'error') ? 'alert' : 'status'
		}, [
			E('h4', [ title ]),
			(lines.length > 1)
				? E('ul', lines.map((text) => E('li', this.sentence(text))))
				: E('p', lines.flatMap((text) => this.sentence(text))),
			E('div', { 'class': 'ds4-buttons' }, buttons ?? [])
		]);
	}
});
