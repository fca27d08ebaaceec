package doctor

import (
	"fmt"

	"github.com/ds4relay/ds4relay/internal/state"
)

// dropped returns the verdict that dropped a packet, if somebody else's chain did.
func dropped(verdicts []Verdict) *Verdict {
	for i := range verdicts {
		if verdicts[i].Drop {
			return &verdicts[i]
		}
	}
	return nil
}

func (v *Verdict) name() string {
	what := "a rule"
	if v.Policy {
		what = "the policy"
	}
	return fmt.Sprintf("nft table %s %s, %s of chain %s", v.Family, v.Table, what, v.Chain)
}

func (v *Verdict) ours() bool { return v.Table == state.TableName || v.Table == state.FlowTableName }

// allow is the remedy: a rule that accepts what matches.
func (v *Verdict) allow(match string) string {
	if v.ours() {
		return "run `ds4relay up`"
	}
	if v.Hint == "fw4" {
		return "run `service ds4relay reload` and `service firewall reload`: the firewall takes ds4relay's rules from the service"
	}
	return fmt.Sprintf("allow it with `nft insert rule %s %s %s %s accept`, and in the firewall's own configuration for the next boot", v.Family, v.Table, v.Chain, match)
}

// allowForward is the remedy that lets a tunnel's packets be forwarded in both directions.
func (v *Verdict) allowForward(device string) string {
	switch {
	case v.ours():
		return "run `ds4relay up`"
	case v.Hint == "fw4":
		return v.allow("")
	case v.Hint == "firewalld":
		return fmt.Sprintf("`firewall-cmd --permanent --zone=trusted --add-interface=%s` and `firewall-cmd --reload`", device)
	}
	rule := fmt.Sprintf("nft insert rule %s %s %s", v.Family, v.Table, v.Chain)
	return fmt.Sprintf("allow it with `%s oifname %q accept` and `%s iifname %q accept`, and in the firewall's own configuration for the next boot", rule, device, rule, device)
}
