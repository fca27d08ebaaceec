// The program itself, asked as rpcd asks it.
import { execFileSync } from 'node:child_process';

const binary = process.env.DS4RELAY_BINARY;

export function call(method, argument = {}) {
	return JSON.parse(execFileSync(binary, [ 'rpcd', 'call', method ], {
		input: JSON.stringify(argument), encoding: 'utf8'
	}));
}

export const schema = call('schema');
