'use strict';
'require baseclass';
'require ds4relay.api as api';
'require ds4relay.config as config';
'require ds4relay.fields as fields';
'require ds4relay.labels as labels';
'require ds4relay.words as words';

/*
 * Has the program check what a form is about to save, and keeps it from being saved where the form brings new
 * mistakes.
 */

function identity(problem) {
	return [ problem.section, problem.option, problem.value, problem.message ].join('\n');
}

/* The option's place in the form, or null where it is not shown. */
function fieldOf(map, section, option) {
	for (const formSection of map.children)
		for (const child of formSection.children)
			if ((child.ucioption ?? child.option) == option && formSection.cfgsections().includes(section['.name']))
				return map.root?.querySelector('[data-field="%s"]'.format(child.cbid(section['.name']))) ?? null;

	return null;
}

return baseclass.extend({
	/*
	 * Mistakes that the saved configuration has: they are shown, but what is wrong elsewhere keeps nobody from
	 * saving.
	 */
	known: new Set(),

	remember(answer) {
		this.known = new Set(answer.errors.map(identity));

		return answer;
	},

	/* Checks the configuration as it is saved, with the changes that are not applied yet. */
	checkSaved() {
		return api.check(config.text(config.sections())).then((answer) => this.remember(answer));
	},

	/* Makes map.save() check before it writes. */
	protect(map, title) {
		const guard = this,
		      parse = map.parse;

		map.parse = function(...args) {
			this.root.querySelectorAll('.ds4-problems').forEach((node) => node.remove());

			const invalid = guard.invalid(this);

			if (invalid.length) {
				invalid.forEach((problem) => problem.field?.dispatchEvent(new CustomEvent(fields.judge)));
				guard.show(this, invalid);

				return Promise.reject(new TypeError(invalid.map((problem) => problem.text).join('\n')));
			}

			const sections = config.overlay(config.sections(), this);

			return api.check(config.text(sections)).then((answer) => {
				const fresh = answer.errors.filter((problem) => !guard.known.has(identity(problem)));

				if (fresh.length) {
					const problems = guard.locate(fresh, sections, title);

					guard.show(this, problems);

					return Promise.reject(new TypeError(problems.map((problem) => problem.text).join('\n')));
				}

				return parse.apply(this, args).then(() => guard.remember(answer));
			});
		};

		return map;
	},

	/* Fields whose value their own rule refuses. */
	invalid(map) {
		const problems = [];

		for (const formSection of map.children)
			for (const sid of formSection.cfgsections())
				for (const option of formSection.children)
					if (option.isActive(sid) && !option.isValid(sid))
						problems.push({
							text: words.fill('%s: %s', [
								option.stripTags(option.title).trim() || option.option, option.getValidationError(sid)
							]),
							field: map.root.querySelector('[data-field="%s"]'.format(option.cbid(sid)))
						});

		return problems;
	},

	/* Problems as sentences, with the section and field that each is about. */
	locate(problems, sections, title) {
		const bySection = config.labels(sections);

		words.learn(config.forwardNames(sections));

		return problems.map((problem) => {
			const section = bySection.get(problem.section),
			      type = section?.['.type'],
			      where = [
				section ? title(section) : null, problem.option ? labels.of(type, problem.option) : null
			].filter((word) => word != null).join(', ');

			return {
				text: (where ? where + ': ' : '') + labels.speak(words.message(problem), type), section,
				option: problem.option
			};
		});
	},

	show(map, problems) {
		const list = E('ul', problems.map((problem) => E('li', [ problem.text ])));

		map.root.insertBefore(E('div', {
			'class': 'alert-message error ds4-problems', 'role': 'alert', 'tabindex': -1
		}, [
			E('h4', [ _('This cannot be saved yet') ]), list
		]), map.root.firstChild);

		const first = problems
			.map((problem) => problem.field ??
				(problem.section ? fieldOf(map, problem.section, problem.option) : null))
			.find((field) => field);
		const target = first?.querySelector('input:not([type="hidden"]), select, textarea, [tabindex="0"]');

		if (target)
			target.focus();

		map.root.querySelector('.ds4-problems').scrollIntoView({ block: 'nearest' });
	}
});
