package kernel

import "slices"

// UpRecord names the record of the relays that the last `up` or `down` has left up, behind the checksum of the file
// that they are up by. It exists only if there are any.
const UpRecord = "up"

// RivalRecord names the record about another program that takes away again and again what the relays need.
const RivalRecord = "rival"

// NoteUp records the relays that are to be up, and the checksum of their file.
func (k *Kernel) NoteUp(sum string, relays []string) error {
	if len(relays) == 0 {
		return k.remove(UpRecord)
	}
	noted := append([]string{sum}, relays...)
	if slices.Equal(noted, k.upRecord()) {
		return nil
	}
	return k.write(UpRecord, noted)
}

// NotedUp returns the relays that are to be up, and the checksum of their file; none if that is not known.
func (k *Kernel) NotedUp() (sum string, relays []string) {
	noted := k.upRecord()
	if noted == nil {
		return "", nil
	}
	return noted[0], noted[1:]
}

func (k *Kernel) upRecord() []string {
	return read(k, UpRecord, func(noted []string) bool { return len(noted) > 1 })
}
