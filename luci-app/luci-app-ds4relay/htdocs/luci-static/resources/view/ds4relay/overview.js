'use strict';
'require view';
'require dom';
'require poll';
'require ui';
'require uci';
'require ds4relay.actions as actions';
'require ds4relay.api as api';
'require ds4relay.checklist as checklist';
'require ds4relay.config as config';
'require ds4relay.graph as graph';
'require ds4relay.model as model';
'require ds4relay.page as page';
'require ds4relay.part as part';
'require ds4relay.path as path';
'require ds4relay.push as push';
'require ds4relay.rules as rules';
'require ds4relay.words as words';

/* The narrow drawing is for narrow screens. */
const narrow = window.matchMedia('(max-width: 640px)');

return view.extend({
	before: {},

	load() {
		return Promise.all([
			L.resolveDefault(api.hosts(), {}),
			L.resolveDefault(uci.load('ds4relay')),
			this.fetch()
		]).then(([ hosts ]) => {
			words.learn(config.forwardNames());
			this.names = {};

			for (const mac in hosts)
				for (const ip of L.toArray(hosts[mac].ipaddrs ?? hosts[mac].ipv4))
					if (hosts[mac].name)
						this.names[ip] = hosts[mac].name;
		});
	},

	/* Asks for everything that the page shows. */
	fetch() {
		return Promise.all([
			api.status().catch((err) => err),
			L.resolveDefault(api.service(), null)
		]).then(([ status, service ]) => {
			const failed = status instanceof Error;

			this.state = {
				status: failed ? { relays: [], differs: [] } : status,
				error: failed ? status : null,
				service,
				time: Date.now()
			};
		});
	},

	render() {
		page.style();

		this.head = E('div', { 'aria-live': 'polite' });
		this.told = E('div', { 'aria-live': 'polite' });
		this.relays = E('div');
		this.service = E('div');
		this.update();

		poll.add(() => this.refresh());
		narrow.addEventListener('change', () => this.update());

		return E('div', { 'class': 'cbi-map ds4' }, [
			E('h2', { 'name': 'content' }, [ _('DS4Relay') ]),
			E('div', { 'class': 'cbi-map-descr' }, [
				_('The path from a client on the internet to your server at home.')
			]),
			this.head,
			this.told,
			this.relays,
			this.service
		]);
	},

	update() {
		this.state.fresh = config.isFresh((text) => rules.isExample(text));

		const { summary, guides } = model.head(this.state, (relay) => checklist.served(relay)),
		      { status, fresh } = this.state;

		part.show(this.head, JSON.stringify([ summary, guides.map(checklist.identity) ]), () => [
			summary ? this.renderSummary(summary) : '',
			...guides.map((guide) => checklist.render(guide, () => this.refresh()))
		]);
		part.show(this.told, push.key(status.relays), () => push.render(status.relays));
		this.updateRelays(fresh ? [] : status.relays);
		part.show(this.service, JSON.stringify(this.state.service), () => this.renderService(this.state.service));
	},

	/* Asks again, and shows it. */
	refresh() {
		return this.fetch().then(() => this.update());
	},

	renderSummary(summary) {
		return page.alert(summary.kind, summary.title, [ summary.text ], [
			summary.details ? page.commands(summary.details) : '',
			actions.render(summary.action, () => this.refresh())
		]);
	},

	/* A button for an action of the service. */
	button(action, label, style) {
		return actions.control(action, label, style, () => this.refresh());
	},

	renderService(service) {
		if (!service)
			return [];

		return E('div', { 'class': 'cbi-section' }, [
			E('h3', [ _('Service') ]),
			E('div', { 'class': 'ds4-service' }, [
				E('div', [
					E('span', { 'class': 'ds4-state ds4-' + (service.started ? 'good' : 'bad') }, [
						service.started ? _('started') : _('stopped')
					]), ' ',
					service.started
						? E([], [
							this.button('restart', _('Restart'), 'cbi-button-action'), ' ',
							this.button('stop', _('Stop'), 'cbi-button-negative')
						])
						: this.button('start', _('Start'), 'cbi-button-positive')
				]),
				E('div', [
					E('span', { 'class': 'ds4-state ds4-' + (service.enabled ? 'good' : 'warning') }, [
						service.enabled ? _('starts at boot') : _('does not start at boot')
					]), ' ',
					service.enabled
						? this.button('disable', _('Do not start at boot'), 'cbi-button-neutral')
						: this.button('enable', _('Start at boot'), 'cbi-button-positive')
				]),
				page.log()
			])
		]);
	},

	/* What counts is drawn each time, what can be pressed is not. */
	updateRelays(relays) {
		part.show(this.relays, JSON.stringify(relays.map(({ name }) => name)), () => {
			this.drawn = {};

			return relays.map(({ name }) => {
				const parts = this.drawn[name] = { head: E('h3', { 'class': 'ds4-relay' }), body: E('div'), foot: E('div') };

				return E('div', { 'class': 'cbi-section' }, Object.values(parts));
			});
		});

		for (const relay of relays)
			if (this.drawn[relay.name])
				this.updateRelay(relay, this.drawn[relay.name]);
	},

	updateRelay(relay, { head, body, foot }) {
		const now = { time: this.state.time, counters: relay.counters },
		      before = this.before[relay.name],
		      rates = (before?.now.time == now.time) ? before.rates : model.rates(now, before?.now);

		this.before[relay.name] = { now, rates };

		part.show(head, relay.enabled, () => [ words.fill(_('Relay %s'), [ relay.name ]), this.renderSwitch(relay) ]);
		dom.content(body, [
			E('div', { 'class': 'ds4-panel' }, [ this.renderPath(relay, rates) ]),
			graph.render(relay, now.time),
			this.renderForwards(relay)
		]);
		part.show(foot, relay.up, () => (relay.up ? this.renderInterface(relay) : []));
	},

	renderPath(relay, rates) {
		return path.render(relay, this.names, rates, narrow.matches, checklist.served(relay));
	},

	renderSwitch(relay) {
		const label = relay.enabled ? _('Switch off') : _('Switch on'),
		      button = actions.turn(relay.name, !relay.enabled, label, 'cbi-button-neutral');

		button.setAttribute('aria-label', words.fill('%s: %s', [ relay.name, label ]));

		return button;
	},

	/* Where LuCI has the tunnel among the interfaces. */
	renderInterface(relay) {
		return E('div', { 'class': 'ds4-hint' }, [
			...page.sentence(words.fill(_('Among the router’s interfaces the tunnel is `%s`:'),
				[ 'ds4_' + relay.name ])), ' ',
			E('a', { 'href': L.url('admin/network/network') }, [ _('Interfaces') ])
		]);
	},

	renderForwards(relay) {
		const table = new ui.Table([
			_('Forward'), _('Opens'), _('To'), _('Connections'), _('From clients'), _('To clients')
		], { id: 'forwards-' + relay.name, sortable: false, classes: 'ds4-forwards' }, E('em', [
			_('There is no forward: nothing is let through.')
		]));

		table.update(relay.forwards.map((forward) => {
			const { opens, ip, port, clients } = model.split(forward),
			      flows = forward.flows;

			return [
				E('strong', [ model.name(forward) ]),
				E('span', [ opens, clients ? E('small', [ E('br'), words.fill(_('for %s'), [ clients ]) ]) : '' ]),
				E('span', [
					ip + (port ? ':' + port : ''), this.names[ip] ? E('small', [ E('br'), this.names[ip] ]) : '',
					this.renderHost(forward.host)
				]),
				E('span', [ flows ? String(flows.open) : '–' ]),
				this.renderTraffic(flows?.in),
				this.renderTraffic(flows?.out)
			];
		}));

		return table.render();
	},

	/* Whether a host answers, with a dot in its colour; a VPS does not know. */
	renderHost(state) {
		const [ colour, label ] = {
			up: [ 'good', _('answers') ], missing: [ 'bad', _('does not answer') ],
			unknown: [ 'unknown', _('not known whether it answers') ]
		}[state] ?? [];

		return label
			? E('small', [ E('br'), E('span', { 'class': 'ds4-state ds4-' + colour }, [ label ]) ])
			: '';
	},

	renderTraffic(traffic) {
		return traffic
			? E('span', [
				'%1024.1mB'.format(traffic.bytes),
				E('small', [
					E('br'), (traffic.packets == 1) ? _('1 packet') : words.fill(_('%d packets'), [ traffic.packets ])
				])
			])
			: E('span', [ '–' ]);
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
