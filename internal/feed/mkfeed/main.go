// Mkfeed prints the index of a folder of packages for OpenWrt:
//
//	mkfeed opkg FOLDER                    Packages, of *.ipk
//	mkfeed apk FOLDER ARCHITECTURE        APKINDEX.tar.gz, of *.apk; unsigned
//	mkfeed apk FOLDER ARCHITECTURE KEY    the same, signed by KEY.pem, for /etc/apk/keys/KEY.rsa.pub
package main

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ds4relay/ds4relay/internal/feed"
)

func main() {
	index, err := run(os.Args[1:])
	if err == nil {
		_, err = os.Stdout.Write(index)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mkfeed:", err)
		os.Exit(1)
	}
}

func run(args []string) ([]byte, error) {
	switch {
	case len(args) == 2 && args[0] == "opkg":
		return feed.Opkg(args[1])
	case len(args) == 3 && args[0] == "apk":
		return feed.APK(args[1], args[2])
	case len(args) == 4 && args[0] == "apk":
		key, err := readKey(args[3])
		if err != nil {
			return nil, err
		}
		index, err := feed.APK(args[1], args[2])
		if err != nil {
			return nil, err
		}
		return feed.SignAPK(index, key, strings.TrimSuffix(filepath.Base(args[3]), ".pem")+".rsa.pub")
	}
	return nil, errors.New("want opkg FOLDER, or apk FOLDER ARCHITECTURE [KEY.pem]")
}

// readKey reads a private RSA key (PKCS 8) as `openssl genpkey` writes it.
func readKey(path string) (*rsa.PrivateKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s: no key in PEM", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if key, ok := key.(*rsa.PrivateKey); ok {
		return key, nil
	}
	return nil, fmt.Errorf("%s: not a key of RSA", path)
}
