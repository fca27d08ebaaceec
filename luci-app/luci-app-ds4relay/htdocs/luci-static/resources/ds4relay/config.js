'use strict';
'require baseclass';
'require uci';
'require form';
'require ds4relay.model as model';

/* The configuration as a file's text, with what a form holds and has not saved, so that the program can check it. */

const name = 'ds4relay';

function quote(text) {
	return "'" + String(text).replace(/'/g, "'\\''") + "'";
}

function isEmpty(value) {
	return value == null || value === '' || (Array.isArray(value) && value.length == 0);
}

function overlayOption(section, formSection, option, sid) {
	const key = option.ucioption ?? option.option,
	      inTable = formSection instanceof form.TableSection;

	/* A table parses what can be edited in it; a modal all but what is for the table only. */
	if (option instanceof form.DummyValue || key.charAt(0) == '_' ||
		(inTable ? !option.editable || option.modalonly : option.modalonly === false))
		return;

	if (!option.isActive(sid)) {
		if (!option.retain)
			delete section[key];

		return;
	}

	const value = option.formvalue(sid),
	      isDefault = option instanceof form.Flag && value == option.default && (option.rmempty || option.optional);

	if (isEmpty(value) || isDefault)
		delete section[key];
	else
		section[key] = value;
}

return baseclass.extend({
	name,

	/* All sections, in their order, as plain objects: `{ '.name', '.type', '.anonymous', OPTION: VALUE, … }`. */
	sections() {
		return uci.sections(name).map((section) => {
			const sid = section['.name'];

			/* uci.sections() has options that were deleted and not saved yet. */
			return Object.fromEntries(Object.entries(section).filter(([ option ]) =>
				option.charAt(0) == '.' || uci.get(name, sid, option) != null));
		});
	},

	/* The relays or forwards of the configuration. */
	of(type) {
		return uci.sections(name, type);
	},

	/* The file's text of sections. Empty options do not exist. */
	text(sections) {
		return sections.map((section) => {
			const lines = [
				'config ' + section['.type'] + (section['.anonymous'] ? '' : ' ' + quote(section['.name']))
			];

			for (const option in section) {
				const value = section[option];

				if (option.charAt(0) == '.' || isEmpty(value))
					continue;

				if (Array.isArray(value))
					lines.push(...value.map((item) => '\tlist ' + option + ' ' + quote(item)));
				else
					lines.push('\toption ' + option + ' ' + quote(value));
			}

			return lines.join('\n') + '\n';
		}).join('\n');
	},

	/* What the program calls each section in its messages: relay "home", forward "forward[0]". */
	labels(sections) {
		const anonymous = {};

		return new Map(sections.map((section) => {
			const type = section['.type'];
			let label = section['.name'];

			if (section['.anonymous']) {
				anonymous[type] = anonymous[type] ?? 0;
				label = type + '[' + (anonymous[type]++) + ']';
			}

			return [ type + ' "' + label + '"', section ];
		}));
	},

	/* What a section of a forward opens, as the status has it. */
	mappings(section) {
		const protos = L.toArray(section.proto ?? 'tcp udp').map((word) => word.toLowerCase())
			.flatMap((word) => ({ any: [ 'all' ], tcpudp: [ 'tcp', 'udp' ] }[word] ?? [ word ])),
		      ports = L.toArray(section.src_dport).flatMap((text) => {
			const [ , first, last ] = /^(\d+)(?:[-:](\d+))?$/.exec(text) ?? [];

			return first ? [ { first: +first, last: +(last ?? first) } ] : [];
		});

		return (ports.length ? ports : [ {} ]).flatMap((range) => protos.map((proto) => ({ proto, ...range })));
	},

	/* What a section of a forward is called on all pages. */
	forwardName(section) {
		return model.name({
			name: section.name, section: section['.anonymous'] ? '' : section['.name'],
			mappings: this.mappings(section)
		});
	},

	/* The names of all forwards, by what the program calls their sections: web, forward[0]. */
	forwardNames(sections) {
		return new Map([ ...this.labels(sections ?? this.sections()) ]
			.map(([ label, section ]) => [ /^forward "(.*)"$/.exec(label)?.[1], section ])
			.filter(([ id ]) => id)
			.map(([ id, section ]) => [ id, this.forwardName(section) ]));
	},

	/*
	 * Sections with the values that a form holds in place of those that are saved, as its options' parse() would write
	 * them. `map` is a form.Map.
	 */
	overlay(sections, map) {
		const byName = new Map(sections.map((section) => [ section['.name'], section ]));

		for (const formSection of map.children)
			for (const sid of formSection.cfgsections())
				if (byName.has(sid))
					for (const option of formSection.children)
						overlayOption(byName.get(sid), formSection, option, sid);

		return sections;
	},

	/*
	 * Nothing is set up yet: there is no relay, or only the package's example, switched off and with the addresses of
	 * documentation.
	 */
	isFresh(isExample) {
		const relays = this.of('relay');

		return relays.length == 0 ||
			(relays.length == 1 && relays[0].enabled == '0' && isExample(relays[0].ipaddr) &&
				(!relays[0].peeraddr || isExample(relays[0].peeraddr)));
	}
});
