'use strict';
'require baseclass';
'require ds4relay.labels as labels';

/*
 * What the program says, in the user's language. It says a code, which is the English as a format and the catalogue's
 * key, and arguments. An answer of an older program has English only: that is shown.
 */

const verb = /%(?:\[(\d+)\])?[sdqv]|%%/g;

/* Fills in a format: %q comes in quotes, all others as they are. */
function fill(format, args) {
	let next = 0;

	return format.replace(verb, (found, index) => {
		if (found == '%%')
			return '%';

		const value = String(args[index ? index - 1 : next++]);

		return found.endsWith('q') ? JSON.stringify(value) : value;
	});
}

/* What the pages call the forwards, by their sections. */
let forwards = new Map();

/* The numbers of the arguments that are sections of forwards: the English says so before them. */
function sectionsIn(code) {
	return [ ...code.matchAll(verb) ].filter(([ found ]) => found != '%%')
		.flatMap(({ index }, i) => code.slice(0, index).endsWith('forward ') ? [ i ] : []);
}

/*
 * Where a text is about the other end's file, by its code: that end has no page, so that the file's words are shown, as
 * commands are. All other texts have the labels of this page.
 */
const theirs = {
	peeraddr: /^at (?:the VPS option|%s) peeraddr |\bpeeraddr (?:there|at the (?:VPS|other end))\b/,
	keep: /^on the VPS .* option keep |\bkeep there \(option keep\)/
};

/* A code in the user's language, with the options of the other end's file between backquotes. */
function localise(code) {
	return Object.keys(theirs).filter((option) => theirs[option].test(code)).reduce((text, option) =>
		text.replace(new RegExp('(?<![`\\w])' + option + '\\b', 'g'), '`$&`'), _(code));
}

/* A text `{ code, args }`, whose arguments may be texts too; everything else as it is. */
function say(text) {
	if (text?.code == null)
		return String(text ?? '');

	if (!text.code)
		return '';

	const named = sectionsIn(text.code);

	return fill(localise(text.code),
		(text.args ?? []).map((arg, i) => say((named.includes(i) && forwards.get(arg)) || arg)));
}

/* The beginning of a long text, as the program shows it. */
function short(text) {
	return (text.length > 100) ? text.slice(0, 100) + '…' : text;
}

/* What is wrong, of a problem in the answer of the method check. */
function message(problem) {
	return say((problem.code == null) ? problem.message : problem);
}

/* What a section is called on the pages. */
function section(label) {
	const [ , type, name ] = /^(relay|forward) "(.*)"$/.exec(label) ?? [];

	return {
		relay: fill(_('Relay %s'), [ name ]), forward: fill(_('Forward %s'), [ forwards.get(name) ?? name ])
	}[type] ?? label;
}

/* A problem with its place: SECTION, FIELD "VALUE": what is wrong. What is in no section has a line. */
function mistake(problem) {
	if (!problem.section && !problem.file)
		return message(problem);

	if (!problem.section)
		return [ problem.file + ':' + problem.line, message(problem) ].join(': ');

	const [ type ] = problem.section.split(' '),
	      field = problem.option
		? labels.of(type, problem.option) + (problem.value ? ' ' + JSON.stringify(short(problem.value)) : '')
		: '';

	return [ section(problem.section), field ].filter((part) => part).join(', ') + ': ' +
		labels.speak(message(problem), type);
}

/*
 * The titles of checks say what is so if all is well. These are for the other case: when a check has failed, and where
 * the title would be wrong with a warning too, `[ failed, warning ]`.
 */
const otherwise = {
	'Configuration': [ _('The configuration has mistakes') ],
	'Kernel and programs': [ _('Something is missing in the kernel or its programs') ],
	'Endpoints are known': [ _('An endpoint is not known') ],
	'The kernel is as configured': [ _('The kernel is not as configured') ],
	'Room for connections': both(_('Too little room for connections')),
	'The other end is reached over IPv6': [ _('The other end is not reached over IPv6') ],
	'The other end is reached': both(_('The other end is not reached')),
	'This end\'s endpoint is routed to this machine': [
		_('This end\'s endpoint is not routed to this machine')
	],
	'IPv4 in IPv6 (protocol 4) passes both ways': [
		_('IPv4 in IPv6 (protocol 4) does not pass both ways'),
		_('It is not certain that IPv4 in IPv6 (protocol 4) passes both ways')
	],
	'WireGuard\'s packets pass both ways': [
		_('WireGuard\'s packets do not pass both ways'),
		_('It is not certain that WireGuard\'s packets pass both ways')
	],
	'Packets of full size pass both ways': both(_('Packets of full size do not pass both ways')),
	'This machine forwards a client\'s packet': [ _('This machine does not forward a client\'s packet') ],
	'The hosts at home answer': [
		_('A host at home does not answer'), _('Not everything that is forwarded gets an answer')
	],
	'The answer goes back through the tunnel': [ _('The answer does not go back through the tunnel') ],
	'The public address is reached from the internet': [
		_('The public address is not reached from the internet'),
		_('It is not certain that the public address is reached from the internet')
	],
	'The clock is right': both(_('The clock is wrong')),
	'In the way': both(_('In the way')),
	'Note': both(_('Note'))
};

function both(text) {
	return [ text, text ];
}

return baseclass.extend({
	fill, say, message,

	/* A problem with its place. */
	problem: mistake,

	/* Takes the forwards' names, by their sections. */
	learn(names) {
		forwards = names;
	},

	/* The title of a finding: what is so, not what should be. */
	title(finding) {
		const [ failed, warning ] = otherwise[finding.title] ?? [];

		return { failed, warning }[finding.state] ?? _(finding.title);
	},

	/* A member of an answer that is English, and has a code beside it. */
	of(answer, member) {
		return labels.speak(say(answer.codes?.[member] ?? answer[member]));
	},

	/* The same of a member that is a list. */
	list(answer, member) {
		return (answer[member] ?? []).map((english, i) => labels.speak(say(answer.codes?.[member]?.[i] ?? english)));
	},

	/* What an error of the module api says; mistakes in the configuration have a line each. */
	error(err) {
		return err.problems
			? err.problems.map(mistake).join('\n')
			: labels.speak(say((err.code == null) ? err.message : err));
	},

	/* What an option takes, as a refusal. */
	allowed(spec) {
		return say({ code: 'allowed is %s', args: [ { code: spec.allowed } ] });
	},

	/* What to say of an option without a value. `all`: the form may be set to all protocols in place of a port. */
	missing(spec, all) {
		if (spec.name == 'src_dport' && all)
			return say({
				code: 'option src_dport is missing; it takes %s (or set proto to all: every protocol and port)',
				args: [ { code: spec.allowed } ]
			});

		return say({ code: 'option %s is missing; it takes %s', args: [ spec.name, { code: spec.allowed } ] });
	},

	/* A refusal of the module rules. */
	refusal(spec, refused) {
		return refused.code ? say(refused) : this.allowed(spec);
	}
});
