package feed

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto"
	"crypto/rsa"
	"crypto/sha1" // of the format; the metadata have the SHA-256 of the files
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
)

// APK returns the index of the packages (*.apk, format 2) of a folder, gzipped as APKINDEX.tar.gz without a signature.
// Packages for all architectures get the one of the feed, as `apk index --rewrite-arch` does it: apk looks for them in
// its folder. Source: apk-tools, doc/apk-v2.5.scd and src/app_index.c.
func APK(dir, arch string) ([]byte, error) {
	var index bytes.Buffer
	err := each(dir, "*.apk", func(_ string, data []byte) error { return describe(&index, data, arch) })
	if err != nil {
		return nil, err
	}
	return archive(true, [2]string{"DESCRIPTION", "ds4relay"}, [2]string{"APKINDEX", index.String()})
}

// apkFields are the fields of an index whose values are those of .PKGINFO. A value that may be there several times is
// joined by blanks.
var apkFields = []struct{ letter, key string }{
	{"P", "pkgname"}, {"V", "pkgver"}, {"I", "size"}, {"T", "pkgdesc"}, {"U", "url"}, {"L", "license"}, {"o", "origin"},
	{"m", "maintainer"}, {"t", "builddate"}, {"D", "depend"}, {"p", "provides"},
}

// describe writes the paragraph of a package.
func describe(index *bytes.Buffer, data []byte, arch string) error {
	rest := bytes.NewReader(data)
	control, err := gzip.NewReader(rest)
	if err != nil {
		return err
	}
	control.Multistream(false)
	files := tar.NewReader(control)
	header, err := files.Next()
	if err != nil {
		return err
	}
	if header.Name != ".PKGINFO" {
		return fmt.Errorf("begins with %s instead of .PKGINFO", header.Name)
	}
	info, err := io.ReadAll(io.LimitReader(files, maxMember))
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, control); err != nil {
		return err
	}
	name := identity(string(data[:len(data)-rest.Len()]))
	values := map[string][]string{}
	for line := range strings.Lines(string(info)) {
		if key, value, found := strings.Cut(strings.TrimRight(line, "\n"), " = "); found {
			values[key] = append(values[key], value)
		}
	}
	own := strings.Join(values["arch"], " ")
	if own != arch && own != "noarch" {
		return fmt.Errorf("is for %s, not for %s", cmp.Or(own, "no architecture"), arch)
	}
	fmt.Fprintf(index, "C:%s\nA:%s\nS:%d\n", name, arch, len(data))
	for _, field := range apkFields {
		if value := strings.Join(values[field.key], " "); value != "" {
			fmt.Fprintf(index, "%s:%s\n", field.letter, value)
		}
	}
	index.WriteByte('\n')
	return nil
}

// identity is apk's name of a package, of its gzipped metadata: Q1 and their SHA-1 in base64.
func identity(control string) string {
	sum := sha1.Sum([]byte(control))
	return "Q1" + base64.StdEncoding.EncodeToString(sum[:])
}

// SignAPK puts a signature before an index of APK: RSA with SHA-256, by a key that apk knows as /etc/apk/keys/NAME.
func SignAPK(index []byte, key *rsa.PrivateKey, name string) ([]byte, error) {
	sum := sha256.Sum256(index)
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		return nil, err
	}
	signed, err := archive(false, [2]string{".SIGN.RSA256." + name, string(signature)})
	return append(signed, index...), err
}

// archive makes a gzipped tar file. All gzipped parts of an .apk are one tar file, so only the last one has its end.
func archive(last bool, files ...[2]string) ([]byte, error) {
	var data bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&data, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	tarred := tar.NewWriter(zipped)
	for _, file := range files {
		header := &tar.Header{Name: file[0], Mode: 0o644, Size: int64(len(file[1])), Format: tar.FormatUSTAR}
		if err := tarred.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(tarred, file[1]); err != nil {
			return nil, err
		}
	}
	end := tarred.Flush
	if last {
		end = tarred.Close
	}
	if err := end(); err != nil {
		return nil, err
	}
	if err := zipped.Close(); err != nil {
		return nil, err
	}
	return data.Bytes(), nil
}
