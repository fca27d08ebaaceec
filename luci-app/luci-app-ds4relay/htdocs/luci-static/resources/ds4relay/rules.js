'use strict';
'require baseclass';

/*
 * What the program refuses in one option, refused while it is typed, and with the same words: the test compares every
 * rule with the program's own. What an option takes is told by the program (its method schema), not here.
 */

function parse4(text) {
	const parts = text.split('.');

	if (parts.length != 4)
		return null;

	for (const part of parts)
		if (!/^(?:0|[1-9][0-9]{0,2})$/.test(part) || +part > 255)
			return null;

	return parts.map(Number);
}

/* Returns the address's eight groups, or null. */
function parse6(text) {
	const halves = text.split('::');

	if (halves.length > 2 || /^:[^:]/.test(text) || /[^:]:$/.test(text))
		return null;

	const groups = halves.map((half) => {
		const words = [];

		for (const word of (half == '') ? [] : half.split(':')) {
			const octets = word.includes('.') ? parse4(word) : null;

			if (octets)
				words.push(octets[0] * 256 + octets[1], octets[2] * 256 + octets[3]);
			else if (/^[0-9a-fA-F]{1,4}$/.test(word))
				words.push(parseInt(word, 16));
			else
				return null;
		}

		return words;
	});

	/* Only the last words may be written as an IPv4 address. */
	if (groups.includes(null) || /\..*:/.test(text))
		return null;

	const given = groups.reduce((sum, half) => sum + half.length, 0);

	if (halves.length == 1)
		return (given == 8) ? groups[0] : null;

	return (given < 8) ? [ ...groups[0], ...Array(8 - given).fill(0), ...groups[1] ] : null;
}

/* Writes groups as RFC 5952 has it: the longest run of zeros, of two at least, is left out. */
function format6(groups) {
	let start = -1, length = 1;

	for (let i = 0; i < 8; i++) {
		let j = i;

		while (j < 8 && groups[j] == 0)
			j++;

		if (j - i > length)
			start = i, length = j - i;
	}

	const words = groups.map((group) => group.toString(16));

	if (start < 0)
		return words.join(':');

	return words.slice(0, start).join(':') + '::' + words.slice(start + length).join(':');
}

function mask6(groups, bits) {
	return groups.map((group, i) => group & (0xffff << Math.min(16, Math.max(0, 16 - (bits - 16 * i)))) & 0xffff);
}

function isUnicast6(groups) {
	const zeros = groups.slice(0, 5).every((group) => group == 0);

	return !(zeros && (groups[5] == 0 || groups[5] == 0xffff) &&
			(groups[5] == 0xffff || (groups[6] == 0 && groups[7] <= 1))) &&
		(groups[0] & 0xff00) != 0xff00 && (groups[0] & 0xffc0) != 0xfe80;
}

/* Reads an address with a length behind a slash, or returns null. */
function parsePrefix(text, parse, longest) {
	const m = /^([^\/]+)\/(0|[1-9][0-9]{0,2})$/.exec(text);
	const address = m ? parse(m[1]) : null;

	return (address && +m[2] <= longest) ? { address, bits: +m[2] } : null;
}

/* The octets of an IPv4 address, in decimal, become the last four groups. */
function derive(groups, bits, octets) {
	return [ ...mask6(groups, bits).slice(0, 4), ...octets.map((octet) => parseInt(octet, 16)) ];
}

function isNumber(text, low, high) {
	return /^(?:0|[1-9][0-9]{0,9})$/.test(text) && +text >= low && +text <= high;
}

function parsePorts(text) {
	const m = /^([0-9]+)(?:-([0-9]+))?$/.exec(text);

	if (!m || !isNumber(m[1], 1, 65535) || !isNumber(m[2] ?? m[1], +m[1], 65535))
		return null;

	return { first: +m[1], last: +(m[2] ?? m[1]) };
}

/* As OpenWrt's firewall takes them: first:last too. */
function firewallPorts(text) {
	return parsePorts(text.replace(':', '-'));
}

const reserved = [
	'0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.0.0.0/24',
	'192.168.0.0/16', '198.18.0.0/15', '224.0.0.0/3'
].map((text) => parsePrefix(text, parse4, 32));

function number4(octets) {
	return octets.reduce((sum, octet) => sum * 256 + octet, 0);
}

function within4(octets, prefix) {
	const size = 2 ** (32 - prefix.bits);

	return Math.floor(number4(octets) / size) == Math.floor(number4(prefix.address) / size);
}

function isDNSName(text) {
	const name = text.replace(/\.$/, ''),
	      labels = name.split('.');

	return name.length <= 253 && labels.length > 1 && /[a-zA-Z]/.test(name) &&
		labels.every((label) => label.length <= 63 && /^[a-zA-Z0-9_-]+$/.test(label) && !/^-|-$/.test(label));
}

/* An address, also with the length of its network's prefix; a network's own address is no host's. */
function host4(text) {
	const prefix = parsePrefix(text, parse4, 32);

	if (!prefix)
		return parse4(text);

	return (prefix.bits == 32 || number4(prefix.address) % 2 ** (32 - prefix.bits)) ? prefix.address : null;
}

function host6(text) {
	const prefix = parsePrefix(text, parse6, 128);

	if (!prefix)
		return parse6(text);

	return (prefix.bits == 128 || format6(mask6(prefix.address, prefix.bits)) != format6(prefix.address))
		? prefix.address
		: null;
}

/*
 * An endpoint is right (null), or it is refused with a code and its arguments; without a code it is simply not
 * allowed.
 */
function checkEndpoint(text, ipaddr) {
	const address = host6(text);

	if (address)
		return isUnicast6(address) ? null : {};

	const prefix = parsePrefix(text, parse6, 128);

	if (!prefix || !isUnicast6(prefix.address))
		return {};

	const masked = format6(prefix.address),
	      octets = parse4(ipaddr ?? '');

	if (!octets)
		return null;

	const endpoint = derive(prefix.address, prefix.bits, octets);

	if (format6(mask6(endpoint, prefix.bits)) != masked)
		return {
			code: 'the endpoint %s made of it and ipaddr lies outside; allowed is a prefix of at most 64 bits, or an address',
			args: [ format6(endpoint) ]
		};

	return null;
}

/* An address of one host that may be anywhere (Go's netip.Addr.IsGlobalUnicast). */
function isUnicast4(address) {
	return address[0] != 127 && !(address[0] == 169 && address[1] == 254) && !(address[0] >= 224 && address[0] < 240) &&
		![ 0, 2 ** 32 - 1 ].includes(number4(address));
}

/* An address that a device may have for others (unicast4 in internal/config/load.go). */
function isHost4(address) {
	return address[0] > 0 && address[0] < 224 && address[0] != 127;
}

function isFileName(text) {
	return /^\/[^\s\p{Cc}"'\\$`;&|<>()*?[\]#~!{}]+$/u.test(text) && new TextEncoder().encode(text).length <= 255;
}

const allowed = (ok) => (ok ? null : {});

function isNetwork4(text) {
	if (!text.includes('/'))
		return parse4(text) != null;

	const prefix = parsePrefix(text, parse4, 32);

	return prefix != null && number4(prefix.address) % 2 ** (32 - prefix.bits) == 0;
}

return baseclass.extend({
	/* What the methods schema and check know of protocols; set once it is there. */
	protocols: [],

	lookupProtocol(text) {
		const known = this.protocols.find((protocol) => protocol.name == text.toLowerCase());

		if (known)
			return known;

		if (!isNumber(text, 1, 255))
			return null;

		return this.protocols.find((protocol) => protocol.number == +text) ??
			{ name: text, number: +text, ports: false };
	},

	hasPorts(words) {
		return words.some((word) => word.toLowerCase() == 'tcpudp' || this.lookupProtocol(word)?.ports);
	},

	parsePorts: firewallPorts,

	/* Whether an IPv4 address lies in the network of another one with so many bits. */
	isWithin4(text, address, bits) {
		const [ one, other ] = [ parse4(text), parse4(address) ];

		return one != null && other != null && within4(one, { address: other, bits });
	},

	/* The endpoint that the program makes of a prefix and the public address, or null. */
	endpoint(text, ipaddr) {
		const prefix = parsePrefix(text, parse6, 128),
		      octets = parse4(ipaddr ?? '');

		if (!prefix || !octets || checkEndpoint(text, ipaddr))
			return null;

		return format6(host6(text) ?? derive(prefix.address, prefix.bits, octets));
	},

	/* The network of 64 bits that an IPv6 address or prefix is in, or null. */
	network(text) {
		const address = host6(text) ?? parsePrefix(text, parse6, 128)?.address;

		return address ? format6(mask6(address, 64)) : null;
	},

	/* Documentation has these addresses, and nobody else (RFC 5737, RFC 3849): examples that wait to be replaced. */
	isExample(text) {
		const address = host4(text ?? '');

		if (address)
			return [ '192.0.2.0/24', '198.51.100.0/24', '203.0.113.0/24' ]
				.some((net) => within4(address, parsePrefix(net, parse4, 32)));

		return /^2001:0?db8:/i.test(text ?? '');
	},

	isRelayName(text) {
		return /^[a-z0-9_]{1,11}$/.test(text);
	},

	/*
	 * One rule for each option: null, or what is wrong with one value. `values` has the other options of the section.
	 */
	options: {
		relay: {
			enabled: (text) => allowed(/^(?:1|on|true|yes|enabled|0|off|false|no|disabled)$/.test(text)),
			role: (text) => allowed(text == 'router' || text == 'vps'),
			ipaddr(text) {
				const address = host4(text);

				return allowed(address && !reserved.some((prefix) => within4(address, prefix)));
			},
			nicaddr(text) {
				const address = host4(text);

				return allowed(address && isHost4(address));
			},
			ip6addr(text, values) {
				if (text != 'auto')
					return checkEndpoint(text, values.ipaddr);

				return (values.role == 'vps')
					? {
						code: 'is for routers; on a VPS allowed is %s',
						args: [ { code: 'an IPv6 address such as 2001:db8::1, or a prefix of at most 64 bits such as 2001:db8:1::/64' } ]
					}
					: null;
			},
			transport: (text) => allowed(text == 'ipip6' || text == 'wireguard'),
			peeraddr(text, values) {
				if (isDNSName(text))
					return null;

				if (values.transport != 'wireguard')
					return checkEndpoint(text, values.ipaddr);

				const address4 = host4(text), address6 = host6(text);

				return (values.role == 'vps' || (address6 && isUnicast6(address6)) ||
					(address4 && isUnicast4(address4)))
					? null
					: {
						code: 'with transport wireguard allowed is an IPv4 address such as 198.51.100.144, an IPv6 address such as 2001:db8::1, or a DNS name',
						args: []
					};
			},
			public_key: (text) => allowed(/^[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=$/.test(text)),
			private_key_file: (text) => allowed(isFileName(text)),
			preshared_key_file: (text) => allowed(isFileName(text)),
			listen_port: (text) => allowed(isNumber(text, 1, 65535)),
			endpoint_port: (text) => allowed(isNumber(text, 1, 65535)),
			persistent_keepalive: (text) => allowed(isNumber(text, 0, 65535)),
			peer: (text) => allowed(text == 'plain'),
			tunlink: (text) => allowed(text != '.' && text != '..' && !/[\s\p{Cc}\/:"]/u.test(text) &&
				new TextEncoder().encode(text).length <= 15),
			device: (text) => allowed(/^[a-zA-Z0-9_.][a-zA-Z0-9_.-]{0,14}$/.test(text) &&
				![ '.', '..', 'all', 'default' ].includes(text)),
			mtu: (text) => allowed(text == 'auto' || isNumber(text, 576, 65000)),
			encaplimit: (text) => allowed(text == 'none' || text == 'ignore' || isNumber(text, 0, 255)),
			ttl: (text) => allowed(isNumber(text, 1, 255)),
			ip4table: (text) => allowed(isNumber(text, 1, 4294967295) && ![ '253', '254', '255' ].includes(text)),
			priority: (text) => allowed(isNumber(text, 1, 32000)),
			egress: (text) => allowed(text == 'replies' || text == 'all'),
			egress_private: (text) => allowed(/^(?:1|on|true|yes|enabled|0|off|false|no|disabled)$/.test(text)),
			killswitch: (text) => allowed(/^(?:1|on|true|yes|enabled|0|off|false|no|disabled)$/.test(text)),
			/* Which relays there are is looked up by the method check. */
			backup: () => null,
			masq: (text) => allowed(/^(?:1|on|true|yes|enabled|0|off|false|no|disabled)$/.test(text)),
			flow_offloading: (text) => allowed(/^(?:1|on|true|yes|enabled|0|off|false|no|disabled)$/.test(text)),
			standby: (text) => allowed(/^(?:1|on|true|yes|enabled|0|off|false|no|disabled)$/.test(text)),
			target_local: (text) => allowed(/^(?:1|on|true|yes|enabled|0|off|false|no|disabled)$/.test(text)),
			keep(text) {
				const m = /^([^:]*)(?::(.*))?$/.exec(text),
				      protocol = m ? this.lookupProtocol(m[1]) : null;

				if (!protocol)
					return {};

				return allowed(protocol.ports
					? (m[2] != null && parsePorts(m[2]))
					: (m[2] == null && !/^[0-9]/.test(m[1])));
			}
		},
		forward: {
			enabled: (text) => allowed(/^(?:1|on|true|yes|enabled|0|off|false|no|disabled)$/.test(text)),
			/* Which relays there are is looked up by the method check. */
			relay: () => null,
			name: (text) => allowed([ ...text ].length <= 64 && !/\p{Cc}/u.test(text)),
			proto(text) {
				return allowed([ 'all', 'any', 'tcpudp' ].includes(text.toLowerCase()) || this.lookupProtocol(text));
			},
			src_dport: (text) => allowed(firewallPorts(text)),
			dest_ip(text) {
				const address = host4(text);

				return allowed(address && isHost4(address));
			},
			dest_port(text, values) {
				const ports = firewallPorts(text),
				      given = [ values.src_dport ?? [] ].flat()
					.flatMap((one) => one.split(/\s+/)).filter((one) => one != ''),
				      open = firewallPorts(given[0] ?? '');

				if (ports && given.length > 1)
					return {
						code: 'stands for one src_dport, not for %d; allowed is no dest_port, or a forward of its own for each',
						args: [ given.length ]
					};

				if (!ports || !open)
					return allowed(ports);

				const size = (range) => range.last - range.first + 1;

				return (size(ports) == size(open)) ? null : {
					code: 'has %d ports, src_dport has %d; allowed is as many, mapped one to one',
					args: [ size(ports), size(open) ]
				};
			},
			src_ip: (text) => allowed(isNetwork4(text)),
			egress: (text) => allowed(text == 'replies' || text == 'all'),
			killswitch: (text) => allowed(/^(?:1|on|true|yes|enabled|0|off|false|no|disabled)$/.test(text)),
			masq: (text) => allowed(/^(?:1|on|true|yes|enabled|0|off|false|no|disabled)$/.test(text))
		}
	},

	/*
	 * Returns null, or what is wrong with a value of an option: `{ code, args }`, `{}` for what the schema says is
	 * allowed.
	 */
	check(type, option, text, values) {
		return this.options[type][option].call(this, text, values ?? {});
	}
});
