// Draws a recorded terminal (asciicast version 2) as an animated SVG: recording.mjs FILE.cast FILE.svg
//
// All lines that the terminal has shown are below each other. A piece of a line becomes visible when it was written,
// and the picture scrolls as the terminal did. Where nothing moves (a viewer without CSS animations, or a reader who
// prefers that) the picture is the last screen.
import { createRequire } from 'node:module';
import { readFileSync, writeFileSync } from 'node:fs';

const { Terminal } = createRequire(process.env.DS4RELAY_NODE + '/')('@xterm/headless');

const idle = 2; // the longest pause, in seconds
const end = 6; // how long the last screen stays, in seconds
const together = 0.02; // output within that time is one step
const width = 8.4, height = 18, border = 14; // of a character, and around the screen, in pixels

const [ header, ...lines ] = readFileSync(process.argv[2], 'utf8').trim().split('\n').map((line) => JSON.parse(line));
const { width: columns, height: rows } = header;
const terminal = new Terminal({ cols: columns, rows, scrollback: 10000, allowProposedApi: true });
const buffer = terminal.buffer.active;

// The steps of the recording, without long pauses.
const steps = [];
let now = 0;

for (const [ i, [ time, , data ] ] of lines.entries()) {
	const pause = i ? time - lines[i - 1][0] : 0;

	now += Math.min(pause, idle);

	if (steps.length && pause < together)
		steps[steps.length - 1].data += data;
	else
		steps.push({ time: now, data });
}

const duration = now + end;

// A line as pieces of one style each, without the spaces at its end.
function pieces(line) {
	const found = [];

	for (let x = 0; x < columns; x++) {
		const cell = line?.getCell(x);
		const text = cell?.getChars() || ' ';
		const style = (cell?.isBold() ? 'b' : '') + (cell?.isFgPalette() ? `c${cell.getFgColor()}` : '');
		const last = found.at(-1);

		if (last?.style === style)
			last.text += text;
		else
			found.push({ x, style, text });
	}

	while (found.length && !found.at(-1).text.trim())
		found.pop();

	if (found.length)
		found.at(-1).text = found.at(-1).text.trimEnd();

	return found;
}

// What is drawn: each piece with the time at which it appears, and that at which it was written over.
const drawn = [];
const shown = []; // of each line: its pieces now
const scrolls = [ [ 0, 0 ] ], cursors = [ [ 0, 0, 0 ] ];

function look(time) {
	for (let y = 0; y < buffer.length; y++) {
		const before = shown[y] ?? [], after = pieces(buffer.getLine(y));
		const text = (list) => list.map((p) => p.style + p.text).join('\0');

		if (text(before) === text(after))
			continue;

		// What is there already stays, and the rest of its piece is a piece of its own.
		const kept = before.filter((p) => after.some((q) => q.style === p.style && q.x <= p.x &&
			q.text.startsWith(p.text, p.x - q.x)));

		for (const piece of before)
			if (!kept.includes(piece))
				piece.until = time;

		shown[y] = [ ...kept ];

		for (const piece of after) {
			const ends = kept.filter((p) => p.x >= piece.x && p.x < piece.x + piece.text.length)
				.map((p) => p.x + p.text.length);
			const x = Math.max(piece.x, ...ends);

			if (x < piece.x + piece.text.length) {
				const rest = { x, y, from: time, style: piece.style, text: piece.text.slice(x - piece.x) };

				shown[y].push(rest);
				drawn.push(rest);
			}
		}
	}

	if (scrolls.at(-1)[1] !== buffer.baseY)
		scrolls.push([ time, buffer.baseY ]);

	cursors.push([ time, buffer.cursorX, buffer.baseY + buffer.cursorY ]);
}

for (const step of steps) {
	await new Promise((resolve) => terminal.write(step.data, resolve));
	look(step.time);
}

// A number as short as it can be.
const short = (n, digits = 1) => String(Number(n.toFixed(digits)));
const percent = (time) => `${short(100 * time / duration, 2)}%`;
const escape = (text) => text.replace(/[&<>]/g, (c) => `&#${c.codePointAt(0)};`);

const animations = new Map();
const css = [];

// The class of what is visible for a time.
function visible(from, until) {
	const key = `${from} ${until}`;

	if (!animations.has(key)) {
		const name = `a${animations.size}`;
		const hidden = until === undefined ? '' : `${percent(until)}{opacity:0}`;

		animations.set(key, name);
		css.push(`@keyframes ${name}{0%{opacity:0}${percent(from)}{opacity:1}${hidden}}` +
			`.${name}{${until === undefined ? '' : 'opacity:0;'}animation-name:${name}}`);
	}

	return animations.get(key);
}

const texts = drawn.map(({ x, y, from, until, style, text }) => {
	const indent = text.length - text.trimStart().length;
	const word = text.trim();
	const length = word.length > 1 ? ` textLength="${short(word.length * width)}"` : '';
	const classes = [ visible(from, until), style ].filter(Boolean).join(' ');

	return word && `<text x="${short((x + indent) * width)}" y="${y * height}"${length} class="${classes}">` +
		`${escape(word)}</text>`;
}).filter(Boolean);

const keyframes = (name, list, move) => `@keyframes ${name}{` +
	list.map(([ time, ...at ]) => `${percent(time)}{transform:translate(${move(...at)})}`).join('') + '}' +
	`#${name}{transform:translate(${move(...list.at(-1).slice(1))});animation-name:${name}}`;

css.push(keyframes('page', scrolls, (y) => `0,${-y * height}px`));
css.push(keyframes('cursor', cursors, (x, y) => `${short(x * width)}px,${y * height}px`));

const screen = { width: Math.ceil(columns * width), height: rows * height };
const w = screen.width + 2 * border, h = screen.height + 2 * border;

writeFileSync(process.argv[3], `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${w} ${h}" width="${w}" ` +
`height="${h}" role="img" aria-label="A terminal: ds4relay setup on the VPS, ds4relay join on the router">
<style>
.paper{fill:#f6f8fa;stroke:#d0d7de}
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#24292f;white-space:pre;` +
`dominant-baseline:hanging}
text,g,#cursor{animation:${short(duration)}s step-end infinite}
.b{font-weight:600}.c1{fill:#cf222e}.c2{fill:#1a7f37}.c3{fill:#9a6700}
#cursor{fill:#24292f;opacity:.5}
@media(prefers-color-scheme:dark){.paper{fill:#0d1117;stroke:#30363d}text{fill:#e6edf3}
.c1{fill:#ff7b72}.c2{fill:#3fb950}.c3{fill:#d29922}#cursor{fill:#e6edf3}}
${css.join('\n')}
@media(prefers-reduced-motion:reduce){text,g,#cursor{animation:none!important}}
</style>
<rect class="paper" x=".5" y=".5" width="${w - 1}" height="${h - 1}" rx="8"/>
<svg x="${border}" y="${border}" width="${screen.width}" height="${screen.height}"><g id="page">
<rect id="cursor" y="-2" width="${width}" height="${height - 2}"/>
${texts.join('\n')}
</g></svg>
</svg>
`);
