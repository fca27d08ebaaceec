package openwrt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"unicode/utf8"
)

// A Method is a ubus method of an rpcd plugin. rpcd checks neither names nor types of arguments; Serve does.
type Method struct {
	Arguments []string // all are strings, and all are optional
	Call      func(arguments map[string]string) (any, error)
}

// maxInput limits a browser's input in bytes: the capacity of a pipe (pipe(7)). rpcd writes once, and what does not fit
// into the pipe is lost. It is enough for a configuration file with about 500 forwards.
const maxInput = 64 << 10

// leastPipe is the capacity of a pipe in bytes if the user has many pipes (pipe(7)).
const leastPipe = 4 << 10

// Serve is an rpcd plugin (rpcd's exec.c): `list` prints the methods and their arguments, `call METHOD` reads an object
// with arguments and prints the answer. An error is an object with a member error.
func Serve(args []string, in io.Reader, out io.Writer, methods map[string]Method) error {
	var answer any
	switch {
	case len(args) == 1 && args[0] == "list":
		list := map[string]map[string]string{}
		for name, method := range methods {
			list[name] = map[string]string{}
			for _, argument := range method.Arguments {
				list[name][argument] = "String"
			}
		}
		answer = list
	case len(args) == 2 && args[0] == "call":
		var err error
		if answer, err = call(args[1], in, methods); err != nil {
			answer = map[string]string{"error": err.Error()}
		}
	default:
		return errors.New("rpcd takes list, or call and a method")
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(answer)
}

func call(name string, in io.Reader, methods map[string]Method) (any, error) {
	method, ok := methods[name]
	if !ok {
		return nil, fmt.Errorf("there is no method %q; there are: %v", short(name), slices.Sorted(maps.Keys(methods)))
	}
	data, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxInput {
		return nil, fmt.Errorf("more than %d bytes of arguments", maxInput)
	}
	var given map[string]json.RawMessage
	if data = bytes.TrimSpace(data); len(data) > 0 {
		err := json.Unmarshal(data, &given)
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) && syntax.Offset >= int64(len(data)) && len(data) >= leastPipe {
			return nil, fmt.Errorf("only the first %d bytes of the arguments have arrived: rpcd hands over no more; "+
				"to check a longer configuration: ds4relay check FILE", len(data))
		}
		if err != nil {
			return nil, fmt.Errorf("the arguments are no JSON object: %w", err)
		}
	}
	arguments := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if key == "ubus_rpc_session" { // the caller; rpcd has checked it
			continue
		}
		if !slices.Contains(method.Arguments, key) {
			return nil, fmt.Errorf("%s takes no argument %q; it takes: %v", name, short(key), method.Arguments)
		}
		var text string
		if err := json.Unmarshal(given[key], &text); err != nil {
			return nil, fmt.Errorf("the argument %s is no string", key)
		}
		if !utf8.ValidString(text) {
			return nil, fmt.Errorf("the argument %s is no UTF-8", key)
		}
		arguments[key] = text
	}
	return method.Call(arguments)
}

// short cuts text from a caller, to keep messages short.
func short(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}
