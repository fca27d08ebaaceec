package feed

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// zip makes a gzipped tar file of pairs of names and contents.
func zip(t *testing.T, files ...[2]string) string {
	t.Helper()
	data, err := archive(true, files...)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// folder makes a folder with files.
func folder(t *testing.T, files ...[2]string) string {
	t.Helper()
	dir := t.TempDir()
	for _, file := range files {
		if err := os.WriteFile(filepath.Join(dir, file[0]), []byte(file[1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestOpkg(t *testing.T) {
	control := "Package: a\nVersion: 1-1\nDescription: one\n more of it\nSection: net\n"
	pack := func(name string) string {
		return zip(t, [2]string{"./debian-binary", "2.0\n"}, [2]string{name, zip(t, [2]string{"./control", control})})
	}
	file := pack("./control.tar.gz")
	index, err := Opkg(folder(t, [2]string{"a_1-1_all.ipk", file}, [2]string{"b_1-1_all.ipk", file}))
	paragraph := func(name string) string {
		return control + fmt.Sprintf("Filename: %s\nSize: %d\nSHA256sum: %x\n\n", name, len(file), sha256.Sum256([]byte(file)))
	}
	if want := paragraph("a_1-1_all.ipk") + paragraph("b_1-1_all.ipk"); err != nil || string(index) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, index, want)
	}
	for what, file := range map[string]string{"no gzip": "x", "no control": pack("./data.tar.gz"), "nothing": ""} {
		if _, err := Opkg(folder(t, [2]string{"a_1-1_all.ipk", file})); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := Opkg(t.TempDir()); err == nil {
		t.Error("an empty folder: no error")
	}
}

const pkginfo = `# made by hand
pkgname = a
pkgver = 1-r1
arch = noarch
size = 4711
pkgdesc = one
  more of it
depend = b
depend = c>2
license = Apache-2.0
datahash = 00
`

func TestAPK(t *testing.T) {
	control := zip(t, [2]string{".PKGINFO", pkginfo}, [2]string{".post-install", "#!/bin/sh\n"})
	file := control + zip(t, [2]string{"etc/a", "data"})
	index, err := APK(folder(t, [2]string{"a-1-r1.apk", file}), "x86_64")
	if err != nil {
		t.Fatal(err)
	}
	// The identity is the SHA-1 of the first gzipped part, in base64: apk compares what it installs with it.
	want := fmt.Sprintf("C:%s\nA:x86_64\nS:%d\nP:a\nV:1-r1\nI:4711\nT:one\nL:Apache-2.0\nD:b c>2\n\n", identity(control),
		len(file))
	if text, err := member(bytes.NewReader(index), "APKINDEX"); err != nil || string(text) != want {
		t.Errorf("%v\n%s\nwant\n%s", err, text, want)
	}
	for what, file := range map[string]string{
		"another architecture": zip(t, [2]string{".PKGINFO", strings.Replace(pkginfo, "noarch", "mips_24kc", 1)}),
		"no .PKGINFO":          zip(t, [2]string{"etc/a", "data"}),
		"no gzip":              "x",
	} {
		if _, err := APK(folder(t, [2]string{"a-1-r1.apk", file}), "x86_64"); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestSignAPK(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	index := []byte(zip(t, [2]string{"APKINDEX", "C:Q1\n"}))
	signed, err := SignAPK(index, key, "a.rsa.pub")
	if err != nil || !bytes.HasSuffix(signed, index) {
		t.Fatalf("%v, %d bytes", err, len(signed))
	}
	signature, err := member(bytes.NewReader(signed), ".SIGN.RSA256.a.rsa.pub")
	sum := sha256.Sum256(index)
	if err != nil || rsa.VerifyPKCS1v15(&key.PublicKey, crypto.SHA256, sum[:], signature) != nil {
		t.Errorf("%v, a signature of %d bytes", err, len(signature))
	}
	// Both parts are one tar file.
	unzipped, err := gzip.NewReader(bytes.NewReader(signed))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for files := tar.NewReader(unzipped); ; {
		header, err := files.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
	}
	if got := strings.Join(names, " "); got != ".SIGN.RSA256.a.rsa.pub APKINDEX" {
		t.Errorf("files: %s", got)
	}
}
