// Package txtar reads and writes the cases of tests: several small texts in one file, each behind a line `-- NAME --`.
// The format is that of golang.org/x/tools/txtar, which needs a newer Go than ds4relay.
package txtar

import (
	"os"
	"regexp"
	"strings"
)

// Archive is the content of a file.
type Archive struct {
	Comment string // the lines before the first file
	Files   []File
}

// File is one text of an archive. Its data ends with a line feed, unless it is empty.
type File struct{ Name, Data string }

var marker = regexp.MustCompile(`(?m)^-- +(\S|\S.*\S) +--(?:\n|\z)`)

// Parse reads an archive. Every text is one.
func Parse(text string) *Archive {
	archive := &Archive{}
	data := &archive.Comment
	for {
		at := marker.FindStringSubmatchIndex(text)
		if at == nil {
			*data = ended(text)
			return archive
		}
		*data = text[:at[0]]
		archive.Files = append(archive.Files, File{Name: text[at[2]:at[3]]})
		data, text = &archive.Files[len(archive.Files)-1].Data, text[at[1]:]
	}
}

// ParseFile reads an archive from a file.
func ParseFile(path string) (*Archive, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(string(text)), nil
}

// Format writes an archive. No line of its data may look like the line before a file.
func Format(a *Archive) []byte {
	var text strings.Builder
	text.WriteString(ended(a.Comment))
	for _, f := range a.Files {
		text.WriteString("-- " + f.Name + " --\n" + ended(f.Data))
	}
	return []byte(text.String())
}

// ended adds the last line's line feed.
func ended(text string) string {
	if text == "" || strings.HasSuffix(text, "\n") {
		return text
	}
	return text + "\n"
}
