package vm

import (
	"bytes"
	"fmt"
)

// cpioArchive writes the "newc" format, which the kernel unpacks as its initramfs
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type cpioArchive struct {
	buf   bytes.Buffer
	inode int
}

const (
	cpioDir  = 0o040755
	cpioFile = 0o100755
	cpioLink = 0o120777
)

func (a *cpioArchive) add(name string, mode int, data []byte) {
	a.inode++
	fmt.Fprintf(&a.buf, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		a.inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	a.buf.WriteString(name)
	a.buf.WriteByte(0)
	a.pad()
	a.buf.Write(data)
	a.pad()
}

func (a *cpioArchive) pad() {
	for a.buf.Len()%4 != 0 {
		a.buf.WriteByte(0)
	}
}

func (a *cpioArchive) bytes() []byte {
	a.inode = -1
	a.add("TRAILER!!!", 0, nil)
	return a.buf.Bytes()
}
