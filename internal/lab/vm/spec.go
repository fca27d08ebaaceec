package vm

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// spec is what the host tells the guest, as a file below the run's directory.
type spec struct {
	Args    []string // program and arguments
	Env     []string
	Dir     string // working directory
	Modules string // becomes /lib/modules
	Share   bool   // mount the writable share
}

const (
	specFile = "spec.json"
	shareDir = "/mnt/share"
	shareTag = "share"

	portStdout = "ds4relay.stdout"
	portStderr = "ds4relay.stderr"
	portStatus = "ds4relay.status"

	statusStarted = "started" // the guest runs; followed by either of the next two
	statusExit    = "exit"    // and the program's exit status
	statusError   = "error"   // and why the program was not run
)

func (s spec) write(dir string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, specFile), data, 0o644)
}

func readSpec(dir string) (s spec, err error) {
	data, err := os.ReadFile(filepath.Join(dir, specFile))
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(data, &s)
}
