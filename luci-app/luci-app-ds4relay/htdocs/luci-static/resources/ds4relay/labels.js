'use strict';
'require baseclass';

/* What the pages call the options of the file. The form may have other words where it asks for few of them. */

const labels = {
	relay: {
		enabled: _('Enabled'), ipaddr: _('Public IPv4 address'), nicaddr: _('Address on the network card'),
		peeraddr: _('The other end of the tunnel'),
		ip6addr: _('IPv6 address of this end'), tunlink: _('Interface to the Internet'),
		keep: _('Stays with the VPS'), role: _('This machine is'), egress: _('What goes out by the VPS'),
		killswitch: _('Kill switch'), backup: _('While the VPS is silent'), masq: _('Hide clients’ addresses'),
		egress_private: _('Private networks of the VPS'), mtu: _('MTU'),
		encaplimit: _('Encapsulation limit', 'RFC 2473'), ttl: _('Hop limit'),
		device: _('Name of the tunnel device'), ip4table: _('Routing table'), priority: _('Priority of its rules'),
		transport: _('Tunnel'), public_key: _('The other end’s public key'),
		private_key_file: _('File with the private key'), preshared_key_file: _('File with the preshared key'),
		listen_port: _('UDP port of the VPS'), endpoint_port: _('UDP port of the VPS'),
		persistent_keepalive: _('Keepalive'), peer: _('The home has'), flow_offloading: _('Flow offloading'),
		standby: _('Takes turns with another VPS'), target_local: _('Also for programs on the VPS')
	},
	forward: {
		enabled: _('Enabled'), name: _('Name'), relay: _('Relay', 'tunnel to a VPS'), proto: _('Protocol'),
		src_dport: _('External port'), dest_ip: _('Internal host'), dest_port: _('Internal port'),
		src_ip: _('For these clients only'), egress: _('What goes out by the VPS'), killswitch: _('Kill switch'),
		masq: _('Hide clients’ addresses')
	}
};

/* An option that no message is about; but there are words such as “the option name”. */
const unsaid = 'name';

/* Names of options that are no words of a language, and mean the option without the word before them too. */
const unmistakable = /[0-9_]|addr$|^(?:tunlink|encaplimit|killswitch|masq|proto|egress)$/;

return baseclass.extend({
	/* What an option is called, or its name where the form has none of it. */
	of: (type, name) => labels[type]?.[name] ?? name,

	/* Calls an option otherwise. */
	set(type, name, label) {
		labels[type][name] = label;
	},

	/*
	 * Speaks of the form's fields where the program speaks of options of its file, but not in commands (between
	 * backquotes) and not in names (between quotes). `type` is of the section that it is about, if that is known.
	 */
	speak(text, type) {
		return text.split('`').map((part, i) => (i % 2) ? part : part.replace(
			/((?:\b(?:die |der ))?\b(?:option|list) )?(?<!["\w])([a-z0-9_]+)\b/gi, (found, option, name) => {
				const known = labels[type]?.[name] ?? labels.relay[name] ?? labels.forward[name];

				return (known && name != unsaid && (option || unmistakable.test(name)))
					? _('“%s”').replace('%s', () => known)
					: found;
			})).join('`');
	}
});
