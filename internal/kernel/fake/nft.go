package fake

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/ds4relay/ds4relay/internal/config"
	"github.com/ds4relay/ds4relay/internal/state"
)

// ruleset is the nft tables by family and name, such as "ip ds4relay".
type ruleset map[string]*table

type table struct {
	chains     map[string]*chain
	sets       map[string]*set
	flowtables map[string]*flowtable
	order      []string // chains, sets and flowtables in the order of their creation
}

type chain struct {
	hook  string // type, hook and priority; "" for a chain that others jump to
	rules []string
}

type set struct {
	kind     string // set or map
	spec     string // types and flags
	interval bool
	elements map[string]string
}

type flowtable struct {
	spec    []string // without the devices
	devices []string
}

func newTable() *table {
	return &table{chains: map[string]*chain{}, sets: map[string]*set{}, flowtables: map[string]*flowtable{}}
}

// clone copies everything that a transaction may change.
func (t *table) clone() *table {
	c := newTable()
	for name, chain := range t.chains {
		copied := *chain
		copied.rules = slices.Clone(chain.rules)
		c.chains[name] = &copied
	}
	for name, set := range t.sets {
		copied := *set
		copied.elements = maps.Clone(set.elements)
		c.sets[name] = &copied
	}
	for name, f := range t.flowtables {
		c.flowtables[name] = &flowtable{f.spec, slices.Clone(f.devices)}
	}
	c.order = slices.Clone(t.order)
	return c
}

// sum represents a table without the elements of its sets.
func (t *table) sum() string {
	if t == nil {
		return ""
	}
	var b strings.Builder
	for _, name := range t.order {
		b.WriteString(name)
		if c := t.chains[name]; c != nil {
			b.WriteString("{" + c.hook + "}" + strings.Join(c.rules, ";"))
		} else if s := t.sets[name]; s != nil {
			b.WriteString(s.kind + s.spec)
		} else if f := t.flowtables[name]; f != nil {
			b.WriteString(strings.Join(f.spec, ";") + strings.Join(f.devices, ","))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// text is what nft would list and could load again.
func (t *table) text(name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s {\n", name)
	for _, name := range t.order {
		switch {
		case t.sets[name] != nil:
			s := t.sets[name]
			fmt.Fprintf(&b, "\t%s %s { %s", s.kind, name, s.spec)
			if len(s.elements) > 0 {
				fmt.Fprintf(&b, " elements = { %s };", s.list())
			}
			b.WriteString(" }\n")
		case t.chains[name] != nil:
			c := t.chains[name]
			fmt.Fprintf(&b, "\tchain %s {\n", name)
			if c.hook != "" {
				fmt.Fprintf(&b, "\t\t%s; policy accept;\n", c.hook)
			}
			for _, rule := range c.rules {
				fmt.Fprintf(&b, "\t\t%s\n", rule)
			}
			b.WriteString("\t}\n")
		case t.flowtables[name] != nil:
			f := t.flowtables[name]
			fmt.Fprintf(&b, "\tflowtable %s {\n\t\t%s\n\t\tdevices = { %s }\n\t}\n", name,
				strings.Join(f.spec, "\n\t\t"), strings.Join(f.devices, ", "))
		}
	}
	b.WriteString("}\n")
	return b.String()
}

func (s *set) list() string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(s.elements)) {
		if value := s.elements[key]; value != "" {
			key += " : " + value
		}
		list = append(list, key)
	}
	return strings.Join(list, ", ")
}

// canonical is like text, in an order that does not depend on the table's history.
func (t *table) canonical(name string) string {
	sorted := *t
	sorted.order = slices.Sorted(slices.Values(t.order))
	return sorted.text(name)
}

// forget removes a deleted device from the flowtables.
func (r ruleset) forget(device string) {
	for _, t := range r {
		for _, f := range t.flowtables {
			f.devices = slices.DeleteFunc(f.devices, func(d string) bool { return d == strconv.Quote(device) })
		}
	}
}

// run works like nft -f: it applies all of a script or nothing. hasDevice reports whether a device exists for a
// flowtable.
func (r ruleset) run(script string, hasDevice func(string) bool) (ruleset, error) {
	tx := &transaction{tables: maps.Clone(r), own: map[string]bool{}, hasDevice: hasDevice,
		lines: strings.Split(script, "\n")}
	for tx.at < len(tx.lines) {
		line := tx.next()
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := tx.command(line); err != nil {
			return nil, fmt.Errorf("nft: line %d: %.200s: %w", tx.at, line, err)
		}
	}
	for name := range tx.own {
		if t := tx.tables[name]; t != nil {
			if err := t.complete(); err != nil {
				return nil, fmt.Errorf("nft: table %s: %w", name, err)
			}
		}
	}
	return tx.tables, nil
}

type transaction struct {
	tables    ruleset
	own       map[string]bool // tables that the transaction has copied
	hasDevice func(string) bool
	lines     []string
	at        int
}

func (tx *transaction) next() string {
	tx.at++
	return strings.TrimSpace(tx.lines[tx.at-1])
}

// table returns a table that may be changed.
func (tx *transaction) table(name string) (*table, error) {
	t := tx.tables[name]
	if t == nil {
		return nil, syscall.ENOENT
	}
	if !tx.own[name] {
		t = t.clone()
		tx.tables[name], tx.own[name] = t, true
	}
	return t, nil
}

var errSyntax = errors.New("syntax error")

func (tx *transaction) command(line string) error {
	words := strings.Fields(line)
	switch {
	case words[0] == "table" && len(words) >= 3:
		name := words[1] + " " + words[2]
		if tx.tables[name] == nil {
			tx.tables[name], tx.own[name] = newTable(), true
		}
		if len(words) == 3 {
			return nil
		}
		t, err := tx.table(name)
		if err != nil {
			return err
		}
		return tx.body(t, strings.TrimSpace(strings.SplitN(line, "{", 2)[1]))
	case len(words) == 4 && words[0] == "delete" && words[1] == "table":
		name := words[2] + " " + words[3]
		if tx.tables[name] == nil {
			return syscall.ENOENT
		}
		delete(tx.tables, name)
		return nil
	}
	if len(words) < 4 {
		return errSyntax
	}
	name := words[2] + " " + words[3]
	t, err := tx.table(name)
	if err != nil {
		return err
	}
	switch {
	case words[0] == "flush" && words[1] == "table":
		for _, c := range t.chains {
			c.rules = nil
		}
		return nil
	case words[0] == "delete" && len(words) == 5:
		return t.delete(words[1], words[4])
	case (words[0] == "add" || words[0] == "delete") && words[1] == "element" && len(words) > 5:
		s := t.sets[words[4]]
		if s == nil {
			return syscall.ENOENT
		}
		return s.change(words[0], between(line))
	}
	return errSyntax
}

// between returns the text within the outermost braces.
func between(line string) string {
	from, to := strings.Index(line, "{"), strings.LastIndex(line, "}")
	if from < 0 || to < from {
		return ""
	}
	return strings.TrimSpace(line[from+1 : to])
}

// body reads a table's chains, sets and flowtables up to its closing brace; first is what follows the opening one.
func (tx *transaction) body(t *table, first string) error {
	for line := first; ; line = tx.next() {
		kind, rest, _ := strings.Cut(line, " ")
		name, _, _ := strings.Cut(rest, " ")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case line == "}":
			return nil
		case kind == "chain":
			if err := t.chain(name, tx.block(line)); err != nil {
				return fmt.Errorf("chain %s: %w", name, err)
			}
		case kind == "set", kind == "map":
			if err := t.declare(kind, name, between(line)); err != nil {
				return fmt.Errorf("%s %s: %w", kind, name, err)
			}
		case kind == "flowtable":
			if err := t.flowtable(name, tx.block(line), tx.hasDevice); err != nil {
				return fmt.Errorf("flowtable %s: %w", name, err)
			}
		default:
			return errSyntax
		}
		if tx.at == len(tx.lines) {
			return errSyntax
		}
	}
}

// block returns the statements of a chain or flowtable, on one line or several.
func (tx *transaction) block(line string) []string {
	var statements []string
	if strings.HasSuffix(line, "}") {
		for _, statement := range strings.Split(between(line), ";") {
			if statement = strings.TrimSpace(statement); statement != "" {
				statements = append(statements, statement)
			}
		}
		return statements
	}
	for tx.at < len(tx.lines) {
		switch line := tx.next(); {
		case line == "}":
			return statements
		case line != "" && !strings.HasPrefix(line, "#"):
			statements = append(statements, line)
		}
	}
	return statements
}

func (t *table) chain(name string, statements []string) error {
	hook := ""
	if len(statements) > 0 && strings.HasPrefix(statements[0], "type ") {
		hook, _, _ = strings.Cut(statements[0], ";")
		statements = statements[1:]
	}
	c := t.chains[name]
	if c == nil {
		c = &chain{hook: hook}
		t.chains[name] = c
		t.order = append(t.order, name)
	} else if hook != "" && c.hook != hook {
		return syscall.EEXIST
	}
	c.rules = append(c.rules, statements...)
	return nil
}

func (t *table) declare(kind, name, body string) error {
	spec, elements, _ := strings.Cut(body, " elements = ")
	s := t.sets[name]
	if s == nil {
		s = &set{kind: kind, spec: spec, interval: strings.Contains(spec, "interval"), elements: map[string]string{}}
		t.sets[name] = s
		t.order = append(t.order, name)
	} else if s.kind != kind || s.spec != spec {
		return syscall.EEXIST
	}
	if elements == "" {
		return nil
	}
	return s.change("add", between(elements))
}

func (t *table) flowtable(name string, statements []string, hasDevice func(string) bool) error {
	f := &flowtable{}
	for _, statement := range statements {
		if !strings.HasPrefix(statement, "devices = ") {
			f.spec = append(f.spec, statement)
			continue
		}
		for _, device := range strings.Split(between(statement), ", ") {
			if plain, err := strconv.Unquote(device); err != nil || !hasDevice(plain) {
				return fmt.Errorf("%s: %w", device, syscall.ENOENT)
			}
			f.devices = append(f.devices, device)
		}
	}
	if t.flowtables[name] != nil {
		return syscall.EEXIST
	}
	t.flowtables[name] = f
	t.order = append(t.order, name)
	return nil
}

func (t *table) delete(kind, name string) error {
	switch {
	case kind == "chain" && t.chains[name] != nil:
		if t.uses("goto "+name) || t.uses("jump "+name) {
			return syscall.EBUSY
		}
		delete(t.chains, name)
	case t.sets[name] != nil && t.sets[name].kind == kind:
		if t.uses("@" + name) {
			return syscall.EBUSY
		}
		delete(t.sets, name)
	default:
		return syscall.ENOENT
	}
	t.order = slices.DeleteFunc(t.order, func(n string) bool { return n == name })
	return nil
}

// uses reports whether a rule or a map's verdict contains the words.
func (t *table) uses(words string) bool {
	for _, c := range t.chains {
		for _, rule := range c.rules {
			if strings.HasSuffix(rule, words) || strings.Contains(rule, words+" ") {
				return true
			}
		}
	}
	for _, s := range t.sets {
		for _, value := range s.elements {
			if value == words {
				return true
			}
		}
	}
	return false
}

// complete checks that everything exists that rules and maps refer to.
func (t *table) complete() error {
	for name, c := range t.chains {
		for _, rule := range c.rules {
			words := strings.Fields(rule)
			for i, word := range words {
				target, isSet := strings.CutPrefix(word, "@")
				isSet = isSet && !strings.Contains(target, ",") // a part of the packet (nft(8), raw payload expression)
				isChain := i > 0 && (words[i-1] == "goto" || words[i-1] == "jump")
				if isSet && t.sets[target] == nil && t.flowtables[target] == nil || isChain && t.chains[word] == nil {
					return fmt.Errorf("chain %s: %s: %w", name, rule, syscall.ENOENT)
				}
			}
		}
	}
	for name, s := range t.sets {
		for key, value := range s.elements {
			if verb, target, ok := strings.Cut(value, " "); ok && (verb == "goto" || verb == "jump") &&
				t.chains[target] == nil {
				return fmt.Errorf("map %s: %s : %s: %w", name, key, value, syscall.ENOENT)
			}
		}
	}
	return nil
}

// change adds or deletes elements.
func (s *set) change(verb, list string) error {
	if list == "" {
		return errSyntax
	}
	for _, item := range strings.Split(list, ", ") {
		key, value, _ := strings.Cut(item, " : ")
		have, there := s.elements[key]
		switch {
		case verb == "delete" && !there:
			return fmt.Errorf("%s: %w", key, syscall.ENOENT)
		case verb == "delete":
			delete(s.elements, key)
		case there && have != value:
			return fmt.Errorf("%s: %w", key, syscall.EEXIST)
		case !there && s.interval && s.overlaps(key):
			return fmt.Errorf("%s: conflicting intervals: %w", key, syscall.EEXIST)
		default:
			s.elements[key] = value
		}
	}
	return nil
}

// overlaps reports whether an element matches some of the same packets as an existing one.
func (s *set) overlaps(key string) bool {
	fields := strings.Split(key, concatenation)
	for other := range s.elements {
		common := true
		for i, field := range strings.Split(other, concatenation) {
			common = common && intersect(field, fields[i])
		}
		if common {
			return true
		}
	}
	return false
}

func intersect(a, b string) bool {
	if a == b {
		return true
	}
	if strings.Contains(a+b, ".") {
		p, err1 := prefix(a)
		q, err2 := prefix(b)
		return err1 == nil && err2 == nil && p.Overlaps(q)
	}
	low1, high1, ok1 := ports(a)
	low2, high2, ok2 := ports(b)
	return ok1 && ok2 && low1 <= high2 && low2 <= high1
}

func prefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		s += "/32"
	}
	return netip.ParsePrefix(s)
}

func ports(s string) (low, high int, ok bool) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	low, err1 := strconv.Atoi(first)
	high, err2 := strconv.Atoi(last)
	return low, high, err1 == nil && err2 == nil
}

// concatenation stands between the fields of an element (nft(8)).
const concatenation = " . "

// readKey reads a key of a set of ours as nft does.
func readKey(text string, types []state.Type) (key state.Key) {
	for i, word := range strings.Split(text, concatenation) {
		again := slices.Contains(types[:i], types[i])
		switch t := types[i]; {
		case t == state.Proto:
			key.Proto, _ = config.ParseProto(word)
		case t == state.Service:
			low, high, _ := ports(word)
			key.First, key.Last = uint16(low), uint16(high)
		case t == state.CtState:
			key.CtState = word
		case t == state.IfName && again:
			key.Other, _ = strconv.Unquote(word)
		case t == state.IfName:
			key.Device, _ = strconv.Unquote(word)
		case again:
			key.Client, _ = prefix(word)
		default:
			key.Addr, _ = netip.ParseAddr(word)
		}
	}
	return key
}

// readValue reads a value of a map of ours as nft does.
func readValue(text string, types []state.Type) (value state.Value) {
	if types == nil {
		return value
	}
	for i, word := range strings.Split(text, concatenation) {
		switch types[i] {
		case state.Verdict:
			value.Verdict = word
		case state.Service:
			port, _, _ := ports(word)
			value.Port = uint16(port)
		default:
			value.Addr, _ = netip.ParseAddr(word)
		}
	}
	return value
}
