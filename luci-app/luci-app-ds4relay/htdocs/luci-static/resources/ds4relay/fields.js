'use strict';
'require baseclass';
'require dom';
'require form';
'require ui';
'require uci';
'require tools.widgets as widgets';
'require ds4relay.labels as labels';
'require ds4relay.rules as rules';
'require ds4relay.words as words';

/*
 * Form options that follow the program's schema: default, what is required, what is allowed. Each tells what is wrong
 * with its value below the field, and has a name for screen readers.
 */

/* The event that tells a field to show what is wrong with it, though it was not left yet. */
const judge = 'ds4-judge';

/* Other options of the same section, as the form has them. */
function neighbours(option, sid) {
	const values = {};

	for (const name of [ 'ipaddr', 'role', 'src_dport', 'transport' ]) {
		const other = option.section.getOption(name);

		values[name] = (other ? other.formvalue(sid) : null) ?? uci.get('ds4relay', sid, name) ?? '';
	}

	return values;
}

function validate(sid, value) {
	const words_ = this.spec.list ? L.toArray(value) : [ String(value ?? '') ].filter((text) => text != '');

	const needed = (typeof(this.spec.needed) == 'function')
		? this.spec.needed(neighbours(this, sid))
		: this.spec.needed;

	if (needed && !words_.length)
		return labels.speak(words.missing(this.spec, !(this.section.getOption('proto') instanceof Transports)),
			this.spec.type);

	for (const word of words_) {
		const refused = rules.check(this.spec.type, this.spec.name, word, neighbours(this, sid));

		if (refused)
			return labels.speak(words.refusal(this.spec, refused), this.spec.type);
	}

	return true;
}

/* Values are pasted with blanks around them. This comes before LuCI looks at them. */
function trim(ev) {
	if (ev.target.matches('input[type="text"]') && (ev.type != 'keydown' || ev.key == 'Enter'))
		ev.target.value = ev.target.value.trim();
}

/*
 * Names what a label does not reach, and shows what is wrong below the field, once the field was left. Until then it is
 * not red either: nobody has done anything wrong yet.
 */
function describe(option, sid, node) {
	const title = option.stripTags(option.title).trim(),
	      id = option.cbid(sid) + '.error',
	      error = E('div', { 'id': id, 'class': 'ds4-error', 'aria-live': 'polite' }),
	      inTable = node.matches('td');
	let touched = false, message = '';

	const show = () => {
		error.textContent = touched ? message : '';
		node.querySelectorAll('input:not([type="hidden"]), select, .cbi-dropdown').forEach((field) => {
			if (touched && message) {
				field.setAttribute('aria-invalid', 'true');
				field.setAttribute('aria-describedby', id);
			}
			else {
				field.removeAttribute('aria-invalid');
			}
		});
	};

	node.querySelectorAll('input:not([type="hidden"]), select, .cbi-dropdown').forEach((field) => {
		if (field.id && node.querySelector('label[for="%s"]'.format(field.id))?.classList.contains('cbi-value-title'))
			return;

		field.setAttribute('aria-label',
			inTable ? title + ': ' + (option.section.titleFn('sectiontitle', sid) ?? sid) : title);

		if (field.matches('.cbi-dropdown'))
			field.setAttribute('role', 'group');
	});

	if (inTable)
		return node;

	for (const event of [ 'change', 'keydown' ])
		node.addEventListener(event, trim, true);

	/* Not at once: what moves down when the line appears may be just what is being clicked. */
	let timer;
	const soon = () => {
		window.clearTimeout(timer);
		timer = window.setTimeout(show, 250);
	};

	(node.querySelector('.cbi-value-field') ?? node).appendChild(error);
	node.addEventListener('validation-failure', (ev) => {
		message = ev.detail.message;

		/* LuCI takes no new item of a list from an input that is red. */
		if (!touched && !ev.target.matches('.add-item *, .create-item-input')) {
			ev.target.classList.remove('cbi-input-invalid');
			ev.target.removeAttribute('data-tooltip');
		}

		soon();
	});
	node.addEventListener('validation-success', () => { message = ''; soon(); });

	for (const event of [ 'focusout', 'change', 'cbi-dropdown-close', judge ])
		node.addEventListener(event, (ev) => {
			if (touched || (ev.type == 'focusout' && node.contains(ev.relatedTarget)))
				return;

			touched = true;
			option.triggerValidation(sid);
			soon();
		});

	return node;
}

function renderFrame(sid, inTable, index, nodes) {
	return describe(this, sid, this.constructor.prototype.renderFrame.call(this, sid, inTable, index, nodes));
}

/* Protocols by name or number; all stands alone. */
const Protocols = form.MultiValue.extend({
	__name__: 'DS4.Protocols',

	load(sid) {
		const given = L.toArray(form.MultiValue.prototype.load.call(this, sid))
			.map((word) => word.toLowerCase())
			.map((word) => (word == 'any') ? 'all' : word)
			.flatMap((word) => (word == 'tcpudp') ? [ 'tcp', 'udp' ] : [ word ]);

		this.keylist = [];
		this.vallist = [];
		this.value('all', _('All protocols and ports'));

		for (const name of [ 'tcp', 'udp', 'icmp', 'gre', 'esp', 'sctp' ].concat(given))
			if (!this.keylist.includes(name))
				this.value(name, name.toUpperCase());

		return given.length ? given : null;
	},

	renderWidget(sid, index, cfgvalue) {
		const widget = new ui.Dropdown(L.toArray(cfgvalue ?? this.default), this.transformChoices(), {
			id: this.cbid(sid),
			sort: this.keylist,
			multiple: true,
			optional: true,
			create: true,
			display_items: 6,
			select_placeholder: this.placeholder,
			custom_placeholder: _('name or number'),
			validate: L.bind(this.validate, this, sid),
			disabled: (this.readonly != null) ? this.readonly : this.map.readonly
		});

		const toggle = widget.toggleItem;

		widget.toggleItem = function(sb, li, state) {
			toggle.call(this, sb, li, state);

			if (li.hasAttribute('selected'))
				for (const other of li.parentNode.querySelectorAll('li[selected]'))
					if ((other.dataset.value == 'all') != (li.dataset.value == 'all'))
						toggle.call(this, sb, other, false);
		};

		return widget.render();
	}
});

/* TCP, UDP or both: all that a first forward needs. */
const Transports = form.ListValue.extend({
	__name__: 'DS4.Transports',

	load(sid) {
		this.keylist = [];
		this.vallist = [];
		this.value('tcp', 'TCP');
		this.value('udp', 'UDP');
		this.value('tcp udp', _('TCP and UDP'));

		return form.ListValue.prototype.load.call(this, sid);
	},

	formvalue(sid) {
		return L.toArray(form.ListValue.prototype.formvalue.call(this, sid));
	}
});

/*
 * NetworkSelect, where no interface means that the program finds it, and a name that is no interface's stays as it is.
 * (Its class cannot be extended: its load() calls super() when other calls have run in between.)
 */
function renderUplink(sid, index, cfgvalue) {
	const node = widgets.NetworkSelect.prototype.renderWidget.call(this, sid, index, cfgvalue),
	      widget = dom.findClassInstance(node),
	      automatic = node.querySelector('li[data-value=""]');

	if (automatic)
		dom.content(automatic, E('em', [ _('automatic: the one with a delegated IPv6 prefix, else the way to the VPS') ]));

	if (cfgvalue && !node.querySelector('li[data-value="%s"]'.format(CSS.escape(cfgvalue)))) {
		widget.addChoices([ cfgvalue ]);
		widget.setValue(cfgvalue);
	}

	return node;
}

/* A list that is typed as one line, as in OpenWrt's firewall: values between blanks. */
const Words = form.Value.extend({
	__name__: 'DS4.Words',

	load(sid) {
		const given = L.toArray(form.Value.prototype.load.call(this, sid));

		return given.length ? given.join(' ') : null;
	}
});

return baseclass.extend({
	Protocols,
	Transports,
	Words,
	judge,
	renderUplink,

	specs: {},

	/* Takes the program's answer to the method schema. */
	use(schema) {
		rules.protocols = schema.protocols;

		for (const section of schema.sections) {
			this.specs[section.type] = {};

			for (const spec of section.options)
				this.specs[section.type][spec.name] = Object.assign({ type: section.type }, spec);
		}
	},

	/* Adds an option; properties override what the schema gives, and the title that it has on all pages. */
	add(section, tab, type, name, description, properties) {
		const { needed, title: own, ...rest } = properties ?? {},
		      known = this.specs[section.sectiontype][name],
		      spec = Object.assign({}, known, { needed: needed ?? known.required }),
		      title = own ?? labels.of(section.sectiontype, name),
		      option = tab
			? section.taboption(tab, type, name, title, description)
			: section.option(type, name, title, description);

		if (own)
			labels.set(section.sectiontype, name, own);

		Object.assign(option, {
			spec,
			validate,
			renderFrame,
			placeholder: spec.default || null,
			rmempty: true,
			modalonly: tab ? true : null
		}, rest);

		if (type === form.ListValue || type === Protocols)
			option.optional = true;

		if (type === form.Flag)
			option.default = (spec.default == '0') ? option.disabled : option.enabled;

		if (type === Protocols)
			option.default = spec.default;

		return option;
	}
});
