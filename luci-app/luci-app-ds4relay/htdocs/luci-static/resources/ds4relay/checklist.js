'use strict';
'require baseclass';
'require ds4relay.actions as actions';
'require ds4relay.model as model';
'require ds4relay.page as page';

/* Leads on after the first Save & Apply: this router, the VPS, the first client. */

/* What the user has said with a button, in the browser's storage. */
const key = 'ds4relay.served';

/* What this page has seen itself: the program's note of it may come a minute later. */
const seen = new Set();

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
			...(step.texts ?? []).map((text) => E('p', page.sentence(page.capital(text)))),
			step.details ? page.commands(step.details) : '',
			step.actions ? E('div', { 'class': 'ds4-buttons' }, step.actions.flatMap((action) => [
				(action == 'confirm') ? confirm() : actions.render(action, then, action != step.actions[0]), ' '
			])) : ''
		])
	]);
}

return baseclass.extend({
	/* Whether a client has reached a relay's host at some time. */
	served(relay) {
		if (model.serves(relay))
			seen.add(id(relay));

		return seen.has(id(relay)) || load()[id(relay)] === true;
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
