'use strict';
'require baseclass';
'require ds4relay.rules as rules';
'require ds4relay.services as services';
'require ds4relay.words as words';

/* What the program's answers mean: pure, so that it can be tested without a page. */

/* The run of each minute listens for the other end: what is older than this, in seconds, says nothing about now. */
const freshSeconds = 150;

/* A relay as one word: off, waiting, down, silent (the other end does not answer), unsure, working. */
function condition(relay) {
	if (!relay.enabled && !relay.up)
		return 'off';

	if (relay.waiting)
		return 'waiting';

	if (!relay.up)
		return 'down';

	if (relay.other_end == 'silent')
		return 'silent';

	return (relay.other_end == 'heard' && relay.heard_s <= freshSeconds) ? 'working' : 'unsure';
}

/* The addresses of hosts that do not answer, each once. */
function missing(relay) {
	return [ ...new Set(relay.forwards.filter((f) => f.host == 'missing').map((f) => f.dest_ip)) ];
}

/* The hosts together: good only if all of them answer. */
function hostsState(relay) {
	const states = new Set(relay.forwards.map((forward) => forward.host));

	if (states.has('missing'))
		return (states.size > 1) ? 'warning' : 'bad';

	return (states.size == 1 && states.has('up')) ? 'good' : 'unknown';
}

/* How long ago something was. */
function ago(seconds) {
	if (seconds < 120)
		return words.fill(_('%d s ago'), [ seconds ]);

	if (seconds < 7200)
		return words.fill(_('%d min ago'), [ Math.floor(seconds / 60) ]);

	return (seconds < 172800)
		? words.fill(_('%d h ago'), [ Math.floor(seconds / 3600) ])
		: words.fill(_('%d days ago'), [ Math.floor(seconds / 86400) ]);
}

/* How well the parts of a relay's path do: good, warning, bad, or unknown. `served`: a client has used it. */
function parts(relay, served) {
	const is = condition(relay);

	return {
		client: (is == 'working' && served) ? 'good' : 'unknown',
		vps: { working: 'good', unsure: 'warning', silent: 'bad' }[is] ?? 'unknown',
		tunnel: { working: 'good', unsure: 'warning', silent: 'bad', waiting: 'warning', down: 'bad' }[is] ?? 'unknown',
		router: { working: 'good', unsure: 'good', silent: 'good', waiting: 'warning' }[is] ?? 'unknown',
		host: hostsState(relay)
	};
}

/* What a text about a relay begins with, where there are several. */
function label(relay, relays) {
	return (relays.length > 1) ? words.fill(_('Relay %s: '), [ relay.name ]) : '';
}

/* The relay of which a text, or one of its arguments, says that this router has no key for it. */
function named(text) {
	if (text?.code == 'there is no file %s with the private key; make one: ds4relay genkey %s')
		return text.args[1];

	return (text?.args ?? []).map(named).find((relay) => relay);
}

/*
 * The relay that needs a first key, by such a text. A relay that is up has one, also if its file is gone: the VPS would
 * not know another one.
 */
function keyless(text, status) {
	const keeper = named(text);

	return status?.relays.some((relay) => relay.name == keeper && !relay.up) ? keeper : undefined;
}

/* What is missing, if it is this router's key. */
function withoutKey(relay) {
	return {
		kind: 'warning', title: _('This router has no key yet'),
		text: words.fill(
			_('Relay %s needs a key for WireGuard. It stays on this router; the VPS gets its public half.'), [ relay ]),
		action: 'key ' + relay
	};
}

/* What is wrong before any relay is looked at, or null. */
function general({ status, fresh, error }) {
	if (fresh)
		return {
			kind: 'notice', title: _('Nothing is set up yet'),
			text: _('With an invitation from your VPS, or with four values, a server at home gets a public IPv4 address.'),
			action: 'settings'
		};

	if (error?.problems)
		return {
			kind: 'error', title: _('The configuration has mistakes'), text: words.error(error), action: 'settings'
		};

	if (error)
		return { kind: 'error', title: _('The state is not known'), text: words.error(error), action: 'diagnose' };

	if (!status.relays.some((relay) => relay.enabled))
		return {
			kind: 'warning', title: _('No relay is switched on'),
			text: _('Nothing reaches your home by the public address.'), action: 'switch'
		};

	return null;
}

/* What is wrong on this router, or null. */
function here({ status, service }, relays) {
	const blocked = words.list(status, 'blocked').join('; ');

	if (service && !service.started)
		return {
			kind: 'warning', title: _('DS4Relay is stopped'),
			text: _('Nothing reaches your home by the public address.'), action: 'start'
		};

	const unable = blocked && keyless({ args: status.codes?.blocked }, status);

	if (unable)
		return withoutKey(unable);

	if (blocked)
		return (status.blocked.length == relays.filter((relay) => relay.waiting).length)
			? { kind: 'warning', title: _('The relay waits'), text: blocked, action: 'diagnose' }
			: { kind: 'error', title: _('Something is in the way'), text: blocked, action: 'diagnose' };

	if (status.differs.length)
		return {
			kind: 'warning', title: _('The router is not as the configuration says'),
			...(relays.some((relay) => !relay.up)
				? { text: _('The tunnel is not up. If these commands fail, find out why:'), action: 'diagnose' }
				: { text: _('Something was changed or removed. These commands set it right:'), action: 'reload' }),
			details: status.differs
		};

	return null;
}

/* What is wrong with the other end of a relay, or null. */
function there(relay) {
	switch (condition(relay)) {
	case 'working':
		return null;

	case 'silent':
		return { kind: 'error', title: _('The other end is silent'), ...silence(relay) };

	default:
		return {
			kind: 'warning', title: _('It is not known whether the other end answers'),
			text: (relay.heard_s == null)
				? _('Nothing has been heard of it yet.')
				: words.fill(_('It was last heard of %s.'), [ ago(relay.heard_s) ]),
			action: 'diagnose'
		};
	}
}

/* What to say of hosts that do not answer. */
function absent(relays) {
	return relays.flatMap(missing).map((ip) =>
		words.fill(_('%s does not answer: switch it on, or correct its address'), [ ip ]));
}

/* What is wrong if no host of a relay answers, or null. */
function deserted(relay) {
	return (hostsState(relay) == 'bad')
		? {
			kind: 'error', title: _('No server at home answers'), text: absent([ relay ]).join('; '), action: 'diagnose'
		}
		: null;
}

/* What the status knows of relays that are up, as findings like those of the doctor. */
function observed(status) {
	return status.relays.filter((relay) => relay.enabled && relay.up).flatMap((relay) => {
		const problem = there(relay),
		      answer = { good: 'ok', warning: 'warning', bad: 'failed' }[hostsState(relay)],
		      finding = (title, state, evidence) => ({ relay: relay.name, title, state, evidence, remedy: '' });

		return [
			problem
				? finding(problem.title, (problem.kind == 'error') ? 'failed' : 'warning', problem.text)
				: finding(_('The other end answers'), 'ok', ''),
			...(answer ? [ finding('The hosts at home answer', answer, absent([ relay ]).join('; ')) ] : [])
		];
	});
}

/*
 * What is wrong, in one sentence, and what mends it: `{ kind, title, text, details, action }`. An action is one of the
 * module actions. `all`: the relays that are enabled, where the state has only some of them.
 */
function summary(state, all) {
	const wrong = general(state);

	if (wrong)
		return wrong;

	const { status, service } = state,
	      relays = status.relays.filter((relay) => relay.enabled),
	      local = here(state, relays);

	if (local)
		return local;

	const ends = relays.map((relay) => [ relay, there(relay) ?? deserted(relay) ]).filter(([ , problem ]) => problem),
	      [ relay, problem ] = ends.find(([ , { kind } ]) => kind == 'error') ?? ends[0] ?? [];

	if (problem)
		return { ...problem, title: label(relay, all ?? relays) + problem.title };

	const notes = words.list(status, 'notes').concat(absent(relays));

	if (notes.length)
		return { kind: 'warning', title: _('It works, but'), text: notes.join('; '), action: 'diagnose' };

	if (service && !service.enabled)
		return {
			kind: 'warning', title: _('It works, but not after a restart of the router'),
			text: _('The service is not started at boot.'), action: 'enable'
		};

	return { kind: 'success', title: _('It works'), text: _('The tunnel is up, and the other end answers.') };
}

/* What to say of an end that does not answer, and what to do. A new tunnel knows nothing of the one before. */
function silence(relay) {
	if (relay.heard_s != null)
		return {
			text: words.fill(_('It was last heard of %s. Is it switched on, and online?'), [ ago(relay.heard_s) ]),
			action: 'diagnose'
		};

	return relay.served
		? {
			text: _('Nothing has come from it since the tunnel was made. Is it switched on, and online?'),
			action: 'diagnose'
		}
		: {
			text: _('Nothing has ever come from it. Is it set up, and does it have the same addresses?'),
			action: other(relay)
		};
}

/* The other end of a relay. */
function other(relay) {
	return (relay.role == 'vps') ? 'router' : 'vps';
}

/* Whether a client reaches a host now, or has at some time: a router's program remembers that. */
function serves(relay) {
	return relay.served === true || relay.forwards.some(({ flows }) => flows?.answered > 0);
}

/* What is to be done on this router for a relay, as the texts and actions of a step; or null. */
function firstStep(state, relay) {
	const blocked = !relay.up && state.status.blocked?.length,
	      status = { ...state.status, blocked: blocked ? state.status.blocked : [] },
	      problem = here({ ...state, status }, [ relay ]);

	if (problem)
		return {
			texts: [ blocked ? problem.text : problem.title + ': ' + problem.text ], details: problem.details,
			actions: (problem.details && !relay.up) ? [ 'reload', 'diagnose' ] : [ problem.action ]
		};

	if (!relay.up)
		return { texts: [ _('The tunnel is not up.') ], actions: [ 'start', 'diagnose' ] };

	return (state.service && !state.service.enabled)
		? { texts: [ _('The service is not started at boot.') ], actions: [ 'enable' ] }
		: null;
}

/* The same for the other end, which is set up once something has come from it. */
function secondStep(relay) {
	const end = other(relay);

	if (relay.heard_s != null || !there(relay))
		return null;

	if (!relay.forwards.length)
		return { texts: [ _('The relay has no forward, so that the other end is not asked. Add one.') ], actions: [ 'settings' ] };

	if (relay.joined)
		return {
			texts: [
				_('Nothing has come from it yet. It is paired with this router and needs no more; it may take a minute.')
			],
			actions: [ 'diagnose' ]
		};

	return {
		texts: [
			(end == 'vps')
				? _('Nothing has come from it yet. On the VPS, as root, run what the tab VPS shows; one button copies all of it.')
				: _('Nothing has come from it yet. On the router, run what the tab VPS shows; one button copies all of it.'),
			_('This end asks once a minute. If it is set up already, find out what is in the way.')
		],
		actions: [ end, 'diagnose' ]
	};
}

/* The same for the first client. */
function thirdStep(relay) {
	const easiest = services.easiest(relay);

	if (!easiest)
		return { texts: [ _('The relay has no forward: nothing is let through. Add one.') ], actions: [ 'settings' ] };

	const { forward, mapping } = easiest;

	return {
		texts: [
			services.attempt(relay.ipaddr, mapping),
			forward.clients ? words.fill(_('Only these clients may: %s.'), [ forward.clients.join(', ') ]) : '',
			...absent([ relay ]),
			_('This page notices a connection that your server answers while it is open. If none comes, find out why.')
		].filter((text) => text),
		actions: [ 'diagnose', 'confirm' ]
	};
}

/*
 * The steps to a relay that works, for one that no client has used yet: `{ relay, title, steps }`, each step
 * `{ title, state, texts, details, actions }`.
 */
function guide(state, relay) {
	const relays = state.status.relays.filter((one) => one.enabled),
	      todo = [ firstStep(state, relay), secondStep(relay), thirdStep(relay) ],
	      current = todo.findIndex((step) => step),
	      titles = [
		(relay.role == 'vps') ? _('This VPS') : _('This router'),
		(relay.role == 'vps') ? _('The router at home') : _('The VPS'),
		_('The first client')
	];

	return {
		relay, title: label(relay, relays) + words.fill(_('Setting up: step %d of %d'), [ current + 1, todo.length ]),
		steps: titles.map((title, i) => ({
			title, state: (i < current) ? 'done' : (i == current) ? 'current' : 'open',
			...((i == current) ? todo[i] : {})
		}))
	};
}

/* Whether an end that was set up has fallen silent: that is a fault, not a step. */
function fallen(relay) {
	return relay.heard_s != null && condition(relay) == 'silent';
}

/*
 * What the overview begins with: the steps of relays that no client has used yet (`served` says of which one has), and
 * the summary of the others. It is green only if all relays are in use.
 */
function head(state, served) {
	if (general(state))
		return { summary: summary(state), guides: [] };

	const { status } = state,
	      enabled = status.relays.filter((relay) => relay.enabled),
	      begun = enabled.filter((relay) => !served(relay) && !fallen(relay));

	if (!begun.length)
		return { summary: summary(state), guides: [] };

	const rest = { ...state, status: { ...status, relays: enabled.filter((relay) => !begun.includes(relay)) } },
	      said = rest.status.relays.length ? summary(rest, enabled) : null;

	return { summary: (said?.kind == 'success') ? null : said, guides: begun.map((relay) => guide(state, relay)) };
}

/*
 * What a check needs first: the check that has failed, so that this one would say nothing, or undefined. `failed` are
 * those that have, by relay and id; it learns of checks that are skipped for this reason.
 */
function obstacle(check, failed) {
	const first = (check.needs ?? []).flatMap((id) => [ '', check.relay ].map((relay) => failed.get(relay + ' ' + id)))
		.find((found) => found);

	if (first)
		failed.set(check.relay + ' ' + check.id, first);

	return first;
}

/* Remedies of the doctor that are one click, by their codes. */
const remedies = {
	'run `ds4relay up`': 'reload',
	'run `ds4relay up`; if it comes back, another program takes it away': 'reload',
	'run `ds4relay down` and `ds4relay up`': 'renew',
	'add a section `config relay`, or set option enabled \'1\'': 'switch',
	'add a section `config forward`, or set option enabled \'1\'': 'settings',
	'correct line %d of %s; `ds4relay check` names every mistake': 'settings',
	'write the configuration in LuCI (Services → DS4Relay), or correct the file; `ds4relay check` names mistakes': 'settings'
};

/* The action that does what a finding of the doctor asks for, if there is one. A service that is stopped is started. */
function remedy(finding, service) {
	const action = finding.action ?? remedies[finding.codes?.remedy?.code];

	return (action == 'reload' && service?.started === false) ? 'start' : action;
}

/* Traffic per second since the time before, or null where there is none to compare with. */
function rates(now, before) {
	if (!before || !now.counters || !before.counters)
		return null;

	const seconds = (now.time - before.time) / 1000,
	      rate = (counter) => (now.counters[counter] - before.counters[counter]) / seconds;

	if (!(seconds > 0) || now.counters.rx_bytes < before.counters.rx_bytes ||
		now.counters.tx_bytes < before.counters.tx_bytes)
		return null;

	return { rx: rate('rx_bytes'), tx: rate('tx_bytes') };
}

/* A range of ports, or one port. */
function range(first, last) {
	return (first == last) ? String(first) : first + '-' + last;
}

/* Protocols and ports as a person writes them: TCP, UDP 443. */
function opens(mappings) {
	if (mappings.some((m) => m.proto == 'all'))
		return _('everything');

	const byPorts = new Map(), byProtos = new Map();

	for (const { proto, first, last } of mappings) {
		const ports = first ? range(first, last) : '';

		byPorts.set(ports, (byPorts.get(ports) ?? []).concat(proto.toUpperCase()));
	}

	for (const [ ports, protos ] of byPorts) {
		const together = protos.join(', ');

		byProtos.set(together, (byProtos.get(together) ?? []).concat(ports || []));
	}

	return [ ...byProtos ].map(([ protos, ports ]) => protos + (ports.length ? ' ' + ports.join(', ') : '')).join(', ');
}

/* What a forward is called on all pages: by the user's words for it, by its section, or by what it opens. */
function name(forward) {
	return forward.name || (/^\w+$/.test(forward.section) && forward.section) || opens(forward.mappings);
}

/*
 * A forward of the status: what is open, where it goes, who may. The port is there where it is another one than
 * outside.
 */
function split(forward) {
	const moved = forward.mappings.find((m) => m.first && m.port != m.first);

	return {
		opens: opens(forward.mappings), ip: forward.dest_ip, clients: (forward.clients ?? []).join(', '),
		port: moved ? range(moved.port, moved.port + (moved.last - moved.first)) : ''
	};
}

/* The hosts that a relay's forwards go to, each once. */
function hosts(relay) {
	return [ ...new Set(relay.forwards.map((forward) => split(forward).ip)) ];
}

/*
 * Tells whether an address can be a host at home, by the interfaces of netifd: in the network of one without a default
 * route over IPv4, and not the router's own. The provider's gateway is a neighbour too.
 */
function homes(interfaces) {
	const addresses = (one) => L.toArray(one['ipv4-address']),
	      own = interfaces.flatMap(addresses).map(({ address }) => address),
	      isDefault = ({ target, mask }) => target == '0.0.0.0' && !mask,
	      inside = interfaces.filter((one) => !L.toArray(one.route).some(isDefault)).flatMap(addresses);

	return (ip) => !own.includes(ip) &&
		(!inside.length || inside.some(({ address, mask }) => rules.isWithin4(ip, address, mask)));
}

/* Which relays of the file lead from one public address to this router: the names of each group, in one text. */
function inTurn(relays) {
	const groups = new Map();

	for (const relay of relays)
		if (relay.role != 'vps' && relay.ipaddr)
			groups.set(relay.ipaddr, [ ...(groups.get(relay.ipaddr) ?? []), relay['.name'] ]);

	return [ ...groups.values() ].filter((names) => names.length > 1).map((names) => names.join(' '));
}

return baseclass.extend({
	condition, parts, summary, head, label, serves, observed, obstacle, remedies, remedy, keyless, withoutKey, rates,
	opens, name, split, hosts, homes, missing, inTurn, ago
});
