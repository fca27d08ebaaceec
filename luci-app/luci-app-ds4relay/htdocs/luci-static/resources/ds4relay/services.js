'use strict';
'require baseclass';
'require ds4relay.words as words';

/* What usually listens on a port: a forward's name, until its owner has a better one; and how to try it. */

const web = _('Web server'), mail = _('Mail server');

const services = new Map(Object.entries({
	21: 'FTP', 22: 'SSH', 25: mail, 53: 'DNS', 80: web, 143: mail, 443: web, 465: mail, 587: mail, 993: mail, 995: mail,
	1194: 'OpenVPN', 1883: 'MQTT', 3389: _('Remote desktop'), 5060: 'SIP', 5900: 'VNC', 8006: 'Proxmox', 8080: web,
	8096: 'Jellyfin', 8123: 'Home Assistant', 8443: web, 8883: 'MQTT', 9987: 'TeamSpeak', 19132: 'Minecraft',
	25565: 'Minecraft', 32400: 'Plex', 51820: 'WireGuard', 64738: 'Mumble'
}));

/* Ports whose services a browser opens. */
const schemes = new Map([
	[ 443, 'https' ], [ 80, 'http' ], [ 8443, 'https' ], [ 8080, 'http' ], [ 8123, 'http' ], [ 8096, 'http' ],
	[ 8006, 'https' ], [ 32400, 'http' ]
]);

/* A port of a mapping that a browser opens. Of a range only those that are for nothing else. */
function webPort({ proto, first, last }) {
	if (proto != 'tcp')
		return null;

	return [ ...schemes.keys() ].find((port) =>
		port >= first && port <= last && (first == last || port <= 443));
}

function address(ipaddr, port) {
	const scheme = schemes.get(port),
	      usual = port == ((scheme == 'https') ? 443 : 80);

	return scheme + '://' + ipaddr + (usual ? '' : ':' + port) + '/';
}

/* How easily a client can try a mapping: the lower, the easier. */
function effort(mapping) {
	return webPort(mapping) ? 0 : [ 'tcp', 'all', 'icmp', 'udp' ].indexOf(mapping.proto) + 1 || 5;
}

return baseclass.extend({
	/* The name of what listens on a port; of other ports, and of ranges, the port itself. */
	name: (ports) => services.get(ports) ?? words.fill(_('Port %s'), [ ports ]),

	/* The forward of a relay that a client tries most easily, one that is open to everybody if there is one. */
	easiest(relay) {
		const all = relay.forwards.flatMap((forward) => forward.mappings.map((mapping) => ({ forward, mapping })));

		return all.sort((a, b) => (a.forward.clients ? 1 : 0) - (b.forward.clients ? 1 : 0) ||
			effort(a.mapping) - effort(b.mapping))[0];
	},

	/* What a client has to do to be the first. */
	attempt(ipaddr, mapping) {
		const port = webPort(mapping),
		      { proto, first } = mapping;

		if (port)
			return words.fill(_('On a phone with Wi-Fi off, open `%s` in a browser.'), [ address(ipaddr, port) ]);

		if (proto == 'all')
			return words.fill(_('On a phone with Wi-Fi off, or in another network, use a service of your server at the address `%s`.'),
				[ ipaddr ]);

		if (proto == 'icmp')
			return words.fill(_('On a phone with Wi-Fi off, or in another network, ping `%s`.'), [ ipaddr ]);

		if (!first)
			return words.fill(_('In another network, send something to `%s` by the protocol %s.'),
				[ ipaddr, proto.toUpperCase() ]);

		const service = services.get(String(first));

		return words.fill(_('On a phone with Wi-Fi off, or in another network, connect to `%s`, port %d (%s).'),
			[ ipaddr, first, [ proto.toUpperCase(), service ].filter((word) => word).join(', ') ]);
	}
});
