// The views run in LuCI's loader: a module is a function body that returns its class.
const luci = {
	L: 'readonly', E: 'readonly', _: 'readonly', window: 'readonly', document: 'readonly', navigator: 'readonly',
	CSS: 'readonly', TextEncoder: 'readonly'
};

// What 'require x.y as z' and 'require x.y' bring in as variables.
const requires = {
	meta: { type: 'problem', schema: [] },
	create(context) {
		return {
			'Program:exit'(node) {
				const scope = context.sourceCode.getScope(node);
				const names = new Map();

				for (const statement of node.body) {
					const m = /^require\s+(\S+)(?:\s+as\s+(\S+))?$/.exec(statement.directive ?? '');

					if (m)
						names.set(m[2] ?? m[1].replace(/\W/g, '_'), statement);
				}

				for (const reference of [ ...scope.through, ...scope.childScopes.flatMap((s) => s.through) ]) {
					const name = reference.identifier.name;

					if (!names.has(name) && !(name in luci) && !(name in globalThis))
						context.report({ node: reference.identifier, message: `${name} is required nowhere` });
				}

				const used = new Set([ ...scope.through, ...scope.childScopes.flatMap((s) => s.through) ]
					.map((r) => r.identifier.name));

				for (const [ name, statement ] of names)
					if (!used.has(name) && ![ 'view', 'baseclass' ].includes(name))
						context.report({ node: statement, message: `${name} is required and not used` });
			}
		};
	}
};

const rules = {
	'no-unused-vars': [ 'error', { args: 'none' } ],
	'prefer-const': [ 'error', { destructuring: 'all' } ],
	'no-var': 'error',
	'no-shadow': 'error',
	'no-implicit-globals': 'off',
	'no-eval': 'error',
	'no-unreachable': 'error',
	'no-dupe-keys': 'error',
	'no-fallthrough': 'error',
	'no-useless-escape': [ 'error', { allowRegexCharacters: [ '/' ] } ],
	'no-constant-condition': 'error',
	'no-redeclare': 'error',
	'no-self-assign': 'error',
	'no-cond-assign': 'error',
	'no-irregular-whitespace': 'error',
	'max-len': [ 'error', { code: 120, tabWidth: 4, ignoreStrings: true, ignoreRegExpLiterals: true } ],
	'semi': 'error',
	'no-trailing-spaces': 'error'
};

export default [
	{
		files: [ '**/htdocs/**/*.js' ],
		languageOptions: {
			ecmaVersion: 2021, sourceType: 'script', parserOptions: { ecmaFeatures: { globalReturn: true } }
		},
		plugins: { luci: { rules: { requires } } },
		rules: { ...rules, 'luci/requires': 'error', strict: [ 'error', 'global' ] }
	},
	{
		files: [ '**/*.mjs' ],
		languageOptions: { ecmaVersion: 2023, sourceType: 'module' },
		rules
	}
];
