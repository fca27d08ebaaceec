package vm

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// spec is the host's instructions for the guest, in a file below the run's directory.
type spec struct {
	Args    []string // program and arguments
	Env     []string
	Dir     string   // working directory
	Modules string   // becomes /lib/modules
	Share   bool     // mount the writable share
	Warm    []string // files to copy into the guest's memory
	Icount  bool     // Options.Icount
}

const (
	specFile = "spec.json"
	shareDir = "/mnt/share"
	shareTag = "share"

	portStdout = "ds4relay.stdout"
	portStderr = "ds4relay.stderr"
	portStatus = "ds4relay.status"

	statusStarted = "started" // the guest runs; one of the next two follows
	statusExit    = "exit"    // with the program's exit status
	statusError   = "error"   // with the reason why the program did not run
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
