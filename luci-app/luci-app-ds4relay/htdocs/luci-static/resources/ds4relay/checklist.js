'use strict';
'require baseclass';
'require ds4relay.actions as actions';
'require ds4relay.model as model';
'require ds4relay.page as page';

/* Leads on after the first Save & Apply: this router, the VPS, the first client. */

const key = 'ds4relay.served';

const signs = { done: '✓', current: '➜', open: '○' };

function load() {
	try {
		return JSON.parse(window.localStorage.getItem(key)) ?? {};
	}
	catch {
		return {};
	}
}

/* Another address is another relay. */
function id(relay) {
	return relay.name + ' ' + relay.ipaddr;
}

function renderStep(step, then, confirm) {
	const says = { done: _('done'), current: _('now'), open: _('later') };

	return E('li', {
		'class': 'ds4-todo ds4-' + step.state, 'aria-current': (step.state == 'current') ? 'step' : null
	}, [
		E('span', { 'class': 'ds4-sign', 'aria-hidden': 'true' }, [ signs[step.state] ]),
		E('div', { 'class': 'ds4-finding' }, [
			E('div', [ E('strong', [ step.title ]), ' ', E('span', { 'class': 'ds4-verdict' }, [ says[step.state] ]) ]),
			...(step.texts ?? []).map((text) => E('p', page.sentence(text))),
			step.details ? page.commands(step.details) : '',
			step.actions ? E('div', { 'class': 'ds4-buttons' }, step.actions.flatMap((action) => [
				(action == 'confirm') ? confirm() : actions.render(action, then), ' '
			])) : ''
		])
	]);
}

return baseclass.extend({
	/*
	 * Whether a client has reached a relay's host at some time. That is seen in the status while it lasts; the browser
	 * remembers it, since counters begin anew with each start of the router.
	 */
	served(relay) {
		if (load()[id(relay)])
			return true;

		if (relay.up && model.serves(relay))
			this.remember(relay);

		return relay.up && model.serves(relay);
	},

	remember(relay) {
		try {
			window.localStorage.setItem(key, JSON.stringify(Object.assign(load(), { [id(relay)]: true })));
		}
		catch {
			/* A full or forbidden storage: what the status says has to do. */
		}
	},

	/* The steps of a relay, as model.guide() has them. `then` is called when something has changed. */
	render(guide, then) {
		const confirm = () => E('button', {
			'class': 'btn cbi-button cbi-button-neutral',
			'click': () => {
				this.remember(guide.relay);
				then();
			}
		}, [ _('I have tried it: it works') ]);

		return E('div', { 'class': 'ds4-panel ds4-guide' }, [
			E('h4', [ guide.title ]),
			E('ol', guide.steps.map((step) => renderStep(step, then, confirm)))
		]);
	},

	/* What decides whether the steps look the same as before. */
	identity: (guide) => JSON.stringify([ id(guide.relay), guide.title, guide.steps ])
});
