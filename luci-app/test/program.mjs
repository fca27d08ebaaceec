// The program itself, asked as rpcd asks it.
import { execFileSync } from 'node:child_process';

const binary = process.env.DS4RELAY_BINARY;

export function call(method, argument = {}) {
	return JSON.parse(execFileSync(binary, [ 'rpcd', 'call', method ], {
		input: JSON.stringify(argument), encoding: 'utf8'
	}));
}

export const schema = call('schema');

// What only a VPS with Debian reads is no business of a router's page.
schema.sections = schema.sections.map((section) => ({
	...section, options: section.options.filter((spec) => section.type != 'relay' || spec.name != 'allow')
}));
