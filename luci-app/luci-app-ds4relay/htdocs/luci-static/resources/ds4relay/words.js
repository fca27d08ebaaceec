'use strict';
'require baseclass';
'require ds4relay.messages as messages';

/* What the program says, in the user's language: its sentences are recognized by their formats, and the catalogue has those. */

const verb = /%(?:\[(\d+)\])?[sdqvwcx]|%%/g;

/* Fills in a format of the program: %q comes in quotes, all others as they are. */
function fill(format, args) {
	let next = 0;

	return format.replace(verb, (found, index) => {
		if (found == '%%')
			return '%';

		const value = args[index ? index - 1 : next++];

		return (found == '%q') ? '"' + value + '"' : String(value);
	});
}

function compile(format) {
	const verbs = [ ...format.matchAll(verb) ].map((m) => m[0]),
	      literal = format.split(/%(?:\[\d+\])?[sdqvwcx]/).map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')),
	      groups = verbs.map((found) => ({ '%d': '(-?[0-9]+)', '%q': '"((?:[^"\\\\]|\\\\.)*)"', '%c': '(.)' }[found] ?? '([^]*?)'));

	return {
		format,
		weight: literal.join('').length,
		pattern: new RegExp('^' + literal.map((part, i) => part + (groups[i] ?? '')).join('') + '$')
	};
}

let compiled = null;

/* The most specific format that a sentence was made with. */
function recognize(text) {
	compiled ??= messages.formats.map(compile).sort((a, b) => b.weight - a.weight);

	for (const { format, pattern } of compiled) {
		const m = pattern.exec(text);

		if (m)
			return { format, args: m.slice(1) };
	}

	return null;
}

/* A sentence may have another one in it, or two parts. */
function translate(text, depth) {
	const about = (depth < 4) ? /^forward (\S+): ([^]+)$/.exec(text) : null;

	if (about)
		return fill(_('forward %s: %s'), [ about[1], translate(about[2], depth + 1) ]);

	const found = (depth < 4) ? recognize(text) : null;

	if (found)
		return fill(_(found.format), found.args.map((value) => (value.includes(' ') ? translate(value, depth + 1) : value)));

	const cut = (depth < 4) ? text.lastIndexOf('; ') : -1;

	if (cut > 0)
		return translate(text.slice(0, cut), depth + 1) + '; ' + translate(text.slice(cut + 2), depth + 1);

	return _(text);
}

/* FILE:LINE: SECTION: option NAME "VALUE": of a mistake in the configuration; what follows is the sentence. */
const place = /^(\S+:[0-9]+: (?:[a-z]+ "[^"]*": )?(?:option [a-z0-9_]+(?: "(?:[^"\\]|\\.)*")?: )?)([^]+)$/;

return baseclass.extend({
	fill,

	/* Tells whether an error of the program is about mistakes in the configuration. */
	isMistake(text) {
		return place.test(text);
	},

	/* A sentence of the program, translated as far as the catalogue has it. */
	known(text) {
		const m = place.exec(text);

		return m ? m[1] + translate(m[2], 0) : translate(String(text), 0);
	},

	/* What is wrong, of a problem in the answer of the method check. */
	message(problem) {
		return this.known(problem.message);
	},

	/* What an option takes, as a refusal. */
	allowed(spec) {
		return fill(_('allowed is %s'), [ _(spec.allowed) ]);
	},

	missing(spec) {
		if (spec.name == 'src_dport')
			return fill(_('option src_dport is missing; it takes %s (or set proto to all: every protocol and port)'), [ _(spec.allowed) ]);

		return fill(_('option %s is missing; it takes %s'), [ spec.name, _(spec.allowed) ]);
	},

	/* A refusal of the module rules. */
	refusal(spec, refused) {
		return refused.format ? fill(_(refused.format), refused.args ?? []) : this.allowed(spec);
	}
});
