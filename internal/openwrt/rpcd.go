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

	"github.com/ds4relay/ds4relay/internal/config"

	"github.com/ds4relay/ds4relay/internal/message"
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
			answer = refused(err)
		}
	default:
		return message.New("rpcd takes list, or call and a method")
	}
	encoder := json.NewEncoder(out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(answer)
}

// Refusal is the answer in place of another one: why there is none.
type Refusal struct {
	Version  int              `json:"version"` // message.AnswersVersion
	Error    string           `json:"error"`   // in English
	Code     string           `json:"code,omitempty"`
	Args     []any            `json:"args,omitempty"`
	Problems []config.Problem `json:"problems,omitempty"` // in place of a code, where these are what is wrong
}

func refused(err error) Refusal {
	r := Refusal{Version: message.AnswersVersion, Error: err.Error()}
	var problems config.Problems
	if errors.As(err, &problems) {
		r.Problems = problems.Bounded()
	} else {
		text := message.Of(err)
		r.Code, r.Args = text.Code, text.Args
	}
	return r
}

func call(name string, in io.Reader, methods map[string]Method) (any, error) {
	method, ok := methods[name]
	if !ok {
		return nil, message.New("there is no method %q; there are: %v", short(name),
			fmt.Sprint(slices.Sorted(maps.Keys(methods))))
	}
	data, err := io.ReadAll(io.LimitReader(in, maxInput+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxInput {
		return nil, message.New("more than %d bytes of arguments", maxInput)
	}
	var given map[string]json.RawMessage
	if data = bytes.TrimSpace(data); len(data) > 0 {
		err := json.Unmarshal(data, &given)
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) && syntax.Offset >= int64(len(data)) && len(data) >= leastPipe {
			return nil, message.New("only the first %d bytes of the arguments have arrived: rpcd hands over no more; "+
				"to check a longer configuration: ds4relay check FILE", len(data))
		}
		if err != nil {
			return nil, message.New("the arguments are no JSON object: %v", err)
		}
	}
	arguments := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if key == "ubus_rpc_session" { // the caller; rpcd has checked it
			continue
		}
		if !slices.Contains(method.Arguments, key) {
			return nil, message.New("%s takes no argument %q; it takes: %v", name, short(key),
				fmt.Sprint(method.Arguments))
		}
		var text string
		if err := json.Unmarshal(given[key], &text); err != nil {
			return nil, message.New("the argument %s is no string", key)
		}
		if !utf8.ValidString(text) {
			return nil, message.New("the argument %s is no UTF-8", key)
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
