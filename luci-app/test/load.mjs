// Loads a module of the app as LuCI's loader does (a function body with 'require' lines), with stand-ins for LuCI's own
// modules.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const resources = fileURLToPath(new URL('../luci-app-ds4relay/htdocs/luci-static/resources/', import.meta.url));

// The program of String.format that the modules use: LuCI's cbi.js has it on all strings.
Object.defineProperty(String.prototype, 'format', { configurable: true, value(...args) {
	let i = 0;

	return this.replace(/%(\d*)(?:\.(\d+))?([a-z%])/g, (all, width, precision, verb) =>
		(verb == '%' ? '%' : verb == 'm' ? args[i++] + ' ' : String(args[i++])));
} });

class Base {
	static extend(properties) {
		const parent = this;

		return Object.assign(class extends parent {}, { properties: { ...parent.properties, ...properties } });
	}

	static instantiate() {
		return Object.assign(Object.create(this.prototype), this.properties);
	}
}

// `loaded` gets the modules that are loaded with it.
export function load(name, stubs, globals, loaded = new Map()) {
	for (const [ module, stub ] of Object.entries({ baseclass: Base, view: Base, ...stubs }))
		loaded.set(module, stub);

	const scope = {
		_: (text) => text, L: { toArray }, E: () => ({}),
		window: { matchMedia: () => ({ matches: false, addEventListener() {} }) }, document: {}, ...globals
	};

	function get(module) {
		if (!loaded.has(module)) {
			const source = readFileSync(resources + module.replace(/\./g, '/') + '.js', 'utf8');
			const requires = [ ...source.matchAll(/^'require (\S+?)(?: as (\S+))?';$/gm) ]
				.map(([ , dep, as ]) => [ as ?? dep.replace(/\W/g, '_'), dep ]);
			const factory = new Function(...Object.keys(scope), ...requires.map(([ as ]) => as), source);
			const result = factory(...Object.values(scope), ...requires.map(([ , dep ]) => get(dep)));

			loaded.set(module, (typeof result == 'function' && result.instantiate) ? result.instantiate() : result);
		}

		return loaded.get(module);
	}

	return get(name);
}

function toArray(value) {
	return (value == null) ? [] : Array.isArray(value) ? value : String(value).split(/\s+/).filter((word) => word);
}
