// Prints the titles of the menu and the ACL's description as calls of _(), for xgettext.
import { readFileSync } from 'node:fs';

const root = new URL('../luci-app-ds4relay/root/usr/share/', import.meta.url);
const read = (name) => JSON.parse(readFileSync(new URL(name, root)));

for (const entry of Object.values(read('luci/menu.d/luci-app-ds4relay.json')))
	console.log(`_(${JSON.stringify(entry.title)});`);

for (const group of Object.values(read('rpcd/acl.d/luci-app-ds4relay.json')))
	console.log(`_(${JSON.stringify(group.description)});`);
