'use strict';
'require baseclass';
'require ds4relay.words as words';

/* What usually listens on a port: a forward's name, until its owner has a better one. */

const web = _('Web server'), mail = _('Mail server');

const services = new Map(Object.entries({
	21: 'FTP', 22: 'SSH', 25: mail, 53: 'DNS', 80: web, 143: mail, 443: web, 465: mail, 587: mail, 993: mail, 995: mail,
	1194: 'OpenVPN', 1883: 'MQTT', 3389: _('Remote desktop'), 5060: 'SIP', 5900: 'VNC', 8006: 'Proxmox', 8080: web,
	8096: 'Jellyfin', 8123: 'Home Assistant', 8443: web, 8883: 'MQTT', 9987: 'TeamSpeak', 19132: 'Minecraft',
	25565: 'Minecraft', 32400: 'Plex', 51820: 'WireGuard', 64738: 'Mumble'
}));

return baseclass.extend({
	/* The name of what listens on a port; of other ports, and of ranges, the port itself. */
	name: (ports) => services.get(ports) ?? words.fill(_('Port %s'), [ ports ])
});
