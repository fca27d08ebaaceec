'use strict';
'require view';
'require dom';
'require ui';
'require uci';
'require ds4relay.actions as actions';
'require ds4relay.api as api';
'require ds4relay.config as config';
'require ds4relay.model as model';
'require ds4relay.page as page';
'require ds4relay.words as words';

const marks = { ok: '✓', warning: '!', failed: '✕', skipped: '–', waiting: '…' };

function says(state) {
	return {
		ok: _('in order'), warning: _('needs attention'), failed: _('does not work'), skipped: _('not asked'),
		waiting: _('not run yet'), running: _('runs')
	}[state];
}

/* What the status tells, as findings: for who may only read, since the checks send test packets. */
function fromStatus() {
	return api.status().then((status) => [].concat(
		words.list(status, 'blocked').map((text) => ({
			title: 'In the way', state: 'failed', evidence: text, remedy: ''
		})),
		status.differs.length
			? [ {
				title: 'The kernel is as configured', state: 'failed', evidence: status.differs.join('\n'),
				remedy: _('Start or restart the service.'), action: 'reload'
			} ]
			: [ { title: 'The kernel is as configured', state: 'ok', evidence: '', remedy: '' } ],
		model.observed(status),
		words.list(status, 'notes').map((text) => ({ title: 'Note', state: 'warning', evidence: text, remedy: '' }))
	), (err) => [ {
		title: 'Configuration', state: 'failed', evidence: words.error(err),
		remedy: _('Correct it in the settings.'), action: 'settings'
	} ]);
}

return view.extend({
	load() {
		return L.resolveDefault(uci.load('ds4relay')).then(() => {
			words.learn(config.forwardNames());

			if (L.hasViewPermission() === false)
				return null;

			return api.doctor('', '').then((answer) => answer.checks, () => null);
		});
	},

	render(checks) {
		page.style();

		this.checks = checks;
		this.list = E('ol', { 'class': 'ds4-checks' });
		this.result = E('div', { 'role': 'status' });
		this.progress = E('progress', {
			'class': 'ds4-progress', 'aria-label': _('Progress of the checks'), 'max': 1, 'value': 0,
			'hidden': ''
		});
		this.start = E('button', {
			'class': 'btn cbi-button cbi-button-action important', 'click': ui.createHandlerFn(this, 'run')
		}, [ _('Run the checks') ]);

		/* The checks send packets: they wait until somebody asks for them, here or on the overview. */
		if (!this.checks || window.location.hash == '#run')
			this.run();
		else
			dom.content(this.list, this.waitingRows());

		return E('div', { 'class': 'cbi-map ds4' }, [
			E('h2', { 'name': 'content' }, [ _('DS4Relay – diagnose') ]),
			E('div', { 'class': 'cbi-map-descr' }, [
				_('Tests each part of a packet’s path, and says where it fails and what to do.')
			]),
			(L.hasViewPermission() === false)
				? page.alert('notice', _('The checks send test packets: you may read only'), [
					_('This is what the status tells.')
				])
				: '',
			this.result,
			E('div', { 'class': 'ds4-run' }, [ this.start, ' ', this.progress ]),
			this.list,
			page.log()
		]);
	},

	waitingRows() {
		return this.checks.map((check) => this.renderRow(Object.assign({ state: 'waiting' }, check)));
	},

	/* Runs the checks one after the other. */
	run() {
		this.start.disabled = true;
		this.progress.value = 0;
		dom.content(this.result, []);

		return L.resolveDefault(api.service(), null).then((service) => {
			this.service = service;

			return this.checks ? this.runChecks() : this.showStatus();
		}).then((findings) => this.conclude(findings)).finally(() => {
			this.start.disabled = false;
			this.start.textContent = _('Check again');
		});
	},

	showStatus() {
		return fromStatus().then((findings) => {
			dom.content(this.list, findings.map((finding) => this.renderRow(finding)));

			return findings;
		});
	},

	runChecks() {
		const rows = this.waitingRows(),
		      failed = new Map();

		dom.content(this.list, rows);
		this.progress.hidden = false;
		this.progress.max = this.checks.length;

		return this.checks.reduce((before, check, i) => before.then((findings) => {
			rows[i].className = 'ds4-check ds4-running';
			rows[i].querySelector('.ds4-verdict').textContent = says('running');

			return this.ask(check, failed).then((finding) => {
				const row = this.renderRow(finding);

				if (finding.state == 'failed')
					failed.set(check.relay + ' ' + check.id, finding);

				rows[i].replaceWith(row);
				this.progress.value = i + 1;

				return findings.concat(finding);
			});
		}), Promise.resolve([]));
	},

	/* Does a check, unless one that it needs has failed. */
	ask(check, failed) {
		const first = model.obstacle(check, failed);

		if (first) {
			const evidence = { code: 'needs: %s', args: [ { code: first.title } ] };

			return Promise.resolve({ ...check, state: 'skipped', evidence: words.say(evidence), remedy: '' });
		}

		return api.doctor(check.id, check.relay).catch((err) => ({
			...check, state: 'failed', evidence: words.error(err), remedy: ''
		}));
	},

	/* The button that does what a finding asks for, if there is one. Then all is checked again. */
	renderAction(finding) {
		return actions.render(model.remedy(finding, this.service), () => this.run());
	},

	renderRow(finding) {
		return E('li', { 'class': 'ds4-check ds4-' + finding.state }, [
			E('span', { 'class': 'ds4-sign', 'aria-hidden': 'true' }, [ marks[finding.state] ]),
			E('div', { 'class': 'ds4-finding' }, [
				E('div', [
					E('strong', [ words.title(finding) ]),
					finding.relay ? ' (' + finding.relay + ')' : '', ' ',
					E('span', { 'class': 'ds4-verdict' }, [ says(finding.state) ])
				]),
				this.renderEvidence(words.of(finding, 'evidence')),
				finding.remedy
					? E('div', { 'class': 'ds4-remedy' }, [
						E('strong', [ _('What to do:') ]), ' ',
						...page.sentence(words.of(finding, 'remedy')), ' ', this.renderAction(finding)
					])
					: ''
			])
		]);
	},

	/* Many lines are commands: they are there for who wants them. */
	renderEvidence(evidence) {
		if (!evidence)
			return '';

		const lines = evidence.split('\n');

		if (lines.length < 6)
			return E('div', { 'class': 'ds4-evidence' }, page.sentence(evidence));

		return E('details', [
			E('summary', [ words.fill(_('Details (lines: %d)'), [ lines.length ]) ]), E('pre', [ evidence ])
		]);
	},

	conclude(findings) {
		const of = (state) => findings.filter((finding) => finding.state == state),
		      worst = of('failed')[0] ?? of('warning')[0],
		      relays = [ ...new Set(findings.map(({ relay }) => relay).filter((relay) => relay)) ];

		this.progress.hidden = true;
		dom.content(this.result, worst
			? page.alert((worst.state == 'failed') ? 'error' : 'warning',
				(worst.relay ? model.label({ name: worst.relay }, relays) : '') + words.title(worst),
				[ words.of(worst, worst.remedy ? 'remedy' : 'evidence') ], [ this.renderAction(worst) ])
			: page.alert('success', _('Everything is in order'), [ words.fill(_('Checks: %d'), [ findings.length ]) ]));
	},

	handleSaveApply: null,
	handleSave: null,
	handleReset: null
});
