package doctor

import (
	"github.com/ds4relay/ds4relay/internal/message"
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

func (v *Verdict) name() *message.Text {
	if v.Policy {
		return message.New("nft table %s %s, the policy of chain %s", v.Family, v.Table, v.Chain)
	}
	return message.New("nft table %s %s, a rule of chain %s", v.Family, v.Table, v.Chain)
}

func (v *Verdict) ours() bool { return v.Table == state.TableName || v.Table == state.FlowTableName }

// allow is the remedy that lets through what matches.
func (v *Verdict) allow(match string) *message.Text {
	if v.ours() {
		return message.New("run `ds4relay up`")
	}
	if v.Hint == "fw4" {
		return message.New("run `service ds4relay reload` and `service firewall reload`: the firewall takes " +
			"ds4relay's rules from the service")
	}
	return message.New("allow it with `nft insert rule %s %s %s %s accept`, and in the firewall's own configuration "+
		"for the next boot", v.Family, v.Table, v.Chain, match)
}

// allowForward lets a tunnel's packets be forwarded both ways.
func (v *Verdict) allowForward(device string) *message.Text {
	switch {
	case v.ours():
		return message.New("run `ds4relay up`")
	case v.Hint == "fw4":
		return v.allow("")
	case v.Hint == "firewalld":
		return message.New("`firewall-cmd --permanent --zone=trusted --add-interface=%s` and `firewall-cmd --reload`",
			device)
	}
	rule := "nft insert rule " + v.Family + " " + v.Table + " " + v.Chain
	return message.New("allow it with `%s oifname %q accept` and `%s iifname %q accept`, and in the firewall's own "+
		"configuration for the next boot", rule, device, rule, device)
}
