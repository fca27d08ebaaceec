'use strict';
'require baseclass';
'require rpc';

/*
 * The object ds4relay on ubus. What it cannot do it answers with a member error: that becomes a rejected promise. Its
 * error has the answer's code and arguments, or the mistakes in the configuration.
 */

function declare(method, params) {
	const call = rpc.declare({ object: 'ds4relay', method, params, reject: true, nobatch: true });

	return (...args) => call(...args).then((answer) => {
		if (answer?.error)
			return Promise.reject(Object.assign(new Error(answer.error), {
				code: answer.code, args: answer.args, problems: answer.problems
			}));

		return answer;
	});
}

return baseclass.extend({
	schema: declare('schema'),
	status: declare('status'),
	check: declare('check', [ 'config' ]),
	exportFile: declare('export', [ 'relay' ]),
	service: declare('service'),
	control: declare('control', [ 'action' ]),
	genkey: declare('genkey', [ 'relay' ]),
	invitation: declare('invitation', [ 'invitation' ]),
	join: declare('join', [ 'invitation' ]),
	doctor: declare('doctor', [ 'check', 'relay' ]),

	/* Interfaces of netifd, with the prefixes that they get delegated. */
	interfaces: rpc.declare({ object: 'network.interface', method: 'dump', expect: { 'interface': [] } }),

	/* Hosts of the home by address, with their names where they are known: DHCP leases, neighbours, /etc/ethers. */
	hosts: rpc.declare({ object: 'luci-rpc', method: 'getHostHints', expect: { '': {} } })
});
