package probe

import "testing"

// TestOurs: a table that the doctor makes is recognised as ours, a user's table of that name is not.
func TestOurs(t *testing.T) {
	for listing, want := range map[string]bool{
		followTable: true,
		"table ip ds4relay_doctor {\n\tchain f {\n\t\ttype filter hook forward priority 0;\n\t}\n}\n": false,
		"table ip ds4relay_doctor {\n}\n": false,
	} {
		if ours(listing) != want {
			t.Errorf("%s: %v", listing, !want)
		}
	}
}
