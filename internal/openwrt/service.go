package openwrt

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ds4relay/ds4relay/internal/message"
	"github.com/ds4relay/ds4relay/internal/program"
)

const (
	initScript = "/etc/init.d/ds4relay"
	// bootLinks matches the link that `enable` creates: /etc/rc.d/S21ds4relay.
	bootLinks = "/etc/rc.d/S??ds4relay"
)

// How long an action of the init script may take.
const (
	PageTime  = 25 * time.Second // for rpcd, which waits longer for a plugin
	ShellTime = 3 * time.Minute  // for a person at a slow and busy router
)

// Service is the state of the service ds4relay, from procd and the boot links.
type Service struct {
	Version int  `json:"version"` // message.AnswersVersion
	Enabled bool `json:"enabled"` // started at boot
	Started bool `json:"started"`
}

// ReadService asks procd whether the service is started, and checks its boot link.
func ReadService() (Service, error) {
	s := Service{Version: message.AnswersVersion}
	links, err := filepath.Glob(bootLinks)
	if err != nil {
		return s, err
	}
	s.Enabled = len(links) > 0
	data, err := Call("service", "list", `{"name":"ds4relay"}`)
	if err != nil {
		return s, err
	}
	var services map[string]json.RawMessage
	if err := json.Unmarshal(data, &services); err != nil {
		return s, message.New("the services of procd: %v", err)
	}
	_, s.Started = services["ds4relay"]
	return s, nil
}

// Actions are the actions of the init script that Control runs.
var Actions = []string{"start", "stop", "restart", "reload", "enable", "disable"}

// notStarted is what the init script says after ds4relay has failed.
const notStarted = "ds4relay did not start; see: logread -e ds4relay"

// Control runs an action of the service's init script, within a limit. The error contains the script's output.
func Control(action string, limit time.Duration) error {
	if !slices.Contains(Actions, action) {
		return message.New("there is no action %q; allowed is one of %s", short(action), strings.Join(Actions, ", "))
	}
	var said bytes.Buffer
	_, _, err := program.Command{Name: initScript, Args: []string{action}, Output: &said, Limit: limit}.Run()
	return refusal(action, strings.TrimSpace(said.String()), err)
}

// refusal is the error of an action: err is that of the init script, and said what it has printed.
func refusal(action, said string, err error) error {
	var late *program.LimitError
	switch {
	case errors.As(err, &late):
		return message.New("%s %s takes longer than %s; see the system log: logread -e ds4relay", initScript, action,
			late.Limit)
	case err != nil && said == notStarted:
		return message.New(notStarted)
	case err != nil && said != "":
		return message.Plain(said)
	case err != nil:
		return message.New("%s %s: %v", initScript, action, err)
	}
	return nil
}
