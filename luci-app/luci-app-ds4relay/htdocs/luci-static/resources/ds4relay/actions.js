'use strict';
'require baseclass';
'require ui';
'require uci';
'require ds4relay.api as api';
'require ds4relay.words as words';

/* Buttons that do what a message asks for, and links to where it can be done. Who may only read cannot press them. */

const pages = {
	settings: _('Go to the settings'), vps: _('Set up the VPS'), router: _('Set up the router'),
	diagnose: _('Find out why')
};

/* What the service is asked to do, one after the other. */
const controls = {
	start: [ _('Start'), 'start' ], reload: [ _('Set it right'), 'reload' ], enable: [ _('Start at boot'), 'enable' ],
	renew: [ _('Stop and start'), 'stop', 'start' ]
};

function complain(err) {
	ui.addNotification(null, E('p', [ words.error(err) ]), 'error');
}

return baseclass.extend({
	/* A button; `then` is called after what it does, also if that fails. */
	button(label, style, act, then) {
		return E('button', {
			'class': 'btn cbi-button ' + style,
			'disabled': (L.hasViewPermission() === false) || null,
			'click': ui.createHandlerFn(this, () => act().catch(complain).then(then))
		}, [ label ]);
	},

	/* A button for one action of the service. */
	control(action, label, style, then) {
		return this.button(label, style, () => api.control(action), then);
	},

	/* Switches a relay on or off in the configuration, and shows LuCI's dialogue with what is to be applied. */
	turn(relay, on, label, style) {
		return this.button(label, style, () => {
			uci.set('ds4relay', relay, 'enabled', on ? '1' : '0');

			return uci.save().then(() => ui.changes.init()).then(() => ui.changes.displayChanges());
		});
	},

	/* Makes this router's key for a relay that has none; then the relay can be brought up. */
	makeKey(relay, style, then) {
		return this.button(_('Make the key'), style,
			() => api.genkey(relay).then(() => api.service()).then(({ started }) => started && api.control('reload')), then);
	},

	/*
	 * What mends something: `start`, `reload`, `enable` or `renew` of the service, `switch` to switch the only relay
	 * on, `key RELAY` to make a key, or a page to go to. `second`: another button beside it comes first.
	 */
	render(action, then, second) {
		const style = second ? 'cbi-button-neutral' : 'cbi-button-action important',
		      relays = uci.sections('ds4relay', 'relay');

		if (!action)
			return '';

		if (action == 'switch' && relays.length == 1)
			return this.turn(relays[0]['.name'], true, _('Switch on'), style);

		const [ , keyless ] = /^key (.*)$/.exec(action) ?? [];

		if (keyless)
			return this.makeKey(keyless, style, then);

		if (controls[action]) {
			const [ label, ...steps ] = controls[action];

			return this.button(label, style,
				() => steps.reduce((before, step) => before.then(() => api.control(step)), Promise.resolve()), then);
		}

		const page = pages[action] ? action : 'settings';

		return E('a', {
			'class': 'btn cbi-button ' + style,
			'href': L.url('admin/services/ds4relay', (page == 'router') ? 'vps' : page) +
				((page == 'diagnose') ? '#run' : '')
		}, [ pages[page] ]);
	}
});
