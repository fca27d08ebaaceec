// Reads catalogues of translations.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export const ours = (language) =>
	fileURLToPath(new URL(`../luci-app-ds4relay/po/${language}/ds4relay.po`, import.meta.url));

// LuCI's own catalogue in a source tree.
export const base = (tree, language) => `${tree}/modules/luci-base/po/${language}/base.po`;

// The entries of a .po file that are translated: `{ context, id, text }`, without the header.
export function read(file) {
	const entries = [];
	let entry = {}, keyword = '';

	for (const line of readFileSync(file, 'utf8').split('\n').concat('')) {
		const m = /^(?:(\w+) )?(".*")$/.exec(line.trim());

		if (m) {
			keyword = m[1] ?? keyword;
			entry[keyword] = (entry[keyword] ?? '') + JSON.parse(m[2]);
		}
		else if (line.trim() == '') {
			if (entry.msgid && entry.msgstr)
				entries.push({ context: entry.msgctxt, id: entry.msgid, text: entry.msgstr });

			entry = {};
		}
	}

	return entries;
}

/*
 * The texts of LuCI's catalogues that ours has too, each with LuCI's translations, as in the file luci-base.LANGUAGE.po
 * of the fixtures.
 */
export function shared(language, trees) {
	const known = new Set(read(ours(language)).map((entry) => entry.id)),
	      lines = new Set();

	for (const tree of trees)
		for (const { context, id, text } of read(base(tree, language)))
			if (context == null && known.has(id))
				lines.add(`msgid ${JSON.stringify(id)}\nmsgstr ${JSON.stringify(text)}\n`);

	return [ ...lines ].sort().join('\n');
}

/*
 * Texts that LuCI translates in another way than we do. On a router, which of two catalogues answers depends on the
 * order of their files: so both have to say the same, or ours needs a context or other words.
 */
export function conflicts(language, file) {
	const mine = new Map(read(ours(language)).filter((entry) => entry.context == null)
		.map((entry) => [ entry.id, entry.text ]));

	return read(file)
		.filter(({ context, id, text }) =>
			context == null && mine.has(id) && mine.get(id).toLowerCase() != text.toLowerCase())
		.map(({ id, text }) => `${id}: ${mine.get(id)}, and LuCI has ${text}`);
}
