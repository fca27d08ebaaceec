'use strict';
'require baseclass';

/* The program's messages in the user's language: a message comes with its format and values, the catalogue has the formats. */

function fill(format, args) {
	let next = 0;

	return format.replace(/%(?:%|\[(\d+)\])?[-+# 0]*[sdqvx]|%%/g, (verb, index) => {
		if (verb == '%%')
			return '%';

		const value = args[index ? index - 1 : next++];

		return verb.endsWith('q') ? '"' + value + '"' : String(value);
	});
}

return baseclass.extend({
	fill,

	/* The message of the program, translated. */
	message(problem) {
		if (!problem.format)
			return _(problem.message);

		return fill(_(problem.format), problem.args ?? []);
	},

	/* A sentence of the program that comes without its format. */
	known(text) {
		return _(text);
	},

	/* What an option takes, as a refusal. */
	allowed(spec) {
		return fill(_('allowed is %s'), [ _(spec.allowed) ]);
	},

	missing(spec) {
		return fill(_('option %s is missing; it takes %s'), [ spec.name, _(spec.allowed) ]);
	},

	/* A refusal of the module rules. */
	refusal(spec, refused) {
		return refused.format ? fill(_(refused.format), refused.args ?? []) : this.allowed(spec);
	}
});
