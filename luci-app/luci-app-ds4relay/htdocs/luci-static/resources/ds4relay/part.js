'use strict';
'require baseclass';
'require dom';

/* Parts of a page that asks for the state again and again. */

const keys = new WeakMap();

return baseclass.extend({
	/*
	 * Draws what is in an element again if it is something else, which `key` tells. A button that is drawn again
	 * between press and release is not clicked: what is held down is left until the next time. The focus stays on the
	 * button or link with the same words, and a screen reader does not read again what has not changed.
	 */
	show(node, key, draw) {
		if (keys.get(node) === key || node.matches(':active'))
			return;

		const focused = document.activeElement,
		      words = node.contains(focused) ? focused.textContent : null;

		keys.set(node, key);
		dom.content(node, draw());

		if (words != null)
			[ ...node.querySelectorAll('a, button, summary') ].find((one) => one.textContent == words)
				?.focus({ preventScroll: true });
	}
});
