//go:build !openwrt

package main

import (
	"embed"
	"flag"
	"fmt"
	"io"
	"strings"
)

// completions are the shells' scripts, with placeholders (@names@) for data from the table of commands.
//
//go:embed completion
var completions embed.FS

// completion prints a shell's completion script; the Debian package contains them.
func (a *app) completion(args []string) error {
	shells := map[string]func() *strings.Replacer{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
	if len(args) != 1 || shells[args[0]] == nil {
		return usageError("completion takes one of bash, zsh and fish")
	}
	script, err := completions.ReadFile("completion/" + args[0])
	if err == nil {
		_, err = io.WriteString(a.stdout, shells[args[0]]().Replace(string(script)))
	}
	return err
}

// completed is what a script needs to know about a command, or about the words before the command (without a name).
type completed struct {
	name, summary string
	options       []option
	arguments     string // relays, files, commands; "" for others, which no shell can know
}

// completedCommands returns an entry for the words before the command, and the commands of the general help.
func completedCommands() []completed {
	kinds := map[string]string{"[RELAY…]": "relays", "[RELAY]": "relays", "[FILE]": "files", "[COMMAND]": "commands"}
	list := []completed{{options: completedOptions((&app{}).flags()), arguments: "commands"}}
	for _, c := range commands() {
		if !c.internal {
			f, _ := c.flags(&app{})
			list = append(list, completed{c.name, c.summary, completedOptions(f), kinds[c.args]})
		}
	}
	return list
}

func completedOptions(f *flag.FlagSet) []option {
	return append(options(f), option{"--help", "", "explain the command"})
}

func bashCompletion() *strings.Replacer {
	var values, commands, names strings.Builder
	kinds := map[string]string{"FILE": "files", "DIR": "directories"}
	for _, c := range completedCommands() {
		var words []string
		for _, o := range c.options {
			words = append(words, o.name)
			if kind := kinds[o.value]; kind != "" {
				fmt.Fprintf(&values, "\t%s) complete=%s ;;\n", quote(c.name+" "+o.name), kind)
			} else if o.value != "" {
				fmt.Fprintf(&values, "\t%s) complete=nothing ;;\n", quote(c.name+" "+o.name))
			}
		}
		fmt.Fprintf(&commands, "\t%s) words=%s complete=%s ;;\n",
			quote(c.name), quote(strings.Join(words, " ")), quote(c.arguments))
		names.WriteString(" " + c.name)
	}
	return strings.NewReplacer("@values@\n", values.String(), "@commands@\n", commands.String(),
		"@names@", strings.TrimSpace(names.String()))
}

func zshCompletion() *strings.Replacer {
	var names, general, commands strings.Builder
	kinds := map[string]string{"FILE": "_files", "DIR": "_files -/"}
	arguments := map[string]string{"relays": "'*:relay:_ds4relay_relays'", "files": "'*:file:_files'",
		"commands": "'*:command:_ds4relay_commands'"}
	// These characters have a meaning for _arguments and _describe.
	escape := strings.NewReplacer(":", `\:`, "[", `\[`, "]", `\]`)
	for _, c := range completedCommands() {
		var words []string
		for _, o := range c.options {
			word := o.name + "[" + escape.Replace(o.usage) + "]"
			if o.value != "" {
				word += ":" + o.value + ":" + kinds[o.value]
			}
			words = append(words, quote(word))
		}
		if c.name == "" {
			general.WriteString("\t\t" + strings.Join(words, " \\\n\t\t") + " \\\n")
			continue
		}
		if c.arguments != "" {
			words = append(words, arguments[c.arguments])
		}
		fmt.Fprintf(&names, "\t\t%s\n", quote(c.name+":"+escape.Replace(c.summary)))
		fmt.Fprintf(&commands, "\t%s)\n\t\t_arguments -S \\\n\t\t\t%s\n\t\t;;\n", c.name,
			strings.Join(words, " \\\n\t\t\t"))
	}
	return strings.NewReplacer("@names@\n", names.String(), "@options@\n", general.String(),
		"@commands@\n", commands.String())
}

func fishCompletion() *strings.Replacer {
	var commands strings.Builder
	kinds := map[string]string{"FILE": " -r -F", "DIR": " -x -a '(__fish_complete_directories)'"}
	for _, c := range completedCommands() {
		add := func(where, what, about string) {
			condition := strings.TrimSpace("__ds4relay_is " + where)
			fmt.Fprintf(&commands, "complete -c ds4relay -n %s %s -d %s\n", quote(condition), what, quote(about))
		}
		if c.name != "" {
			add("", "-a "+c.name, c.summary)
			add("help", "-a "+c.name, c.summary)
		}
		for _, o := range c.options {
			word := "-s " + strings.TrimPrefix(o.name, "-")
			if long, ok := strings.CutPrefix(o.name, "--"); ok {
				word = "-l " + long
			}
			if kind := kinds[o.value]; kind != "" {
				word += kind
			} else if o.value != "" {
				word += " -x"
			}
			add(c.name, word, o.usage)
		}
		switch c.arguments {
		case "relays":
			add(c.name, "-a '(__ds4relay_relays)'", "relay")
		case "files":
			add(c.name, "-F", "file")
		}
	}
	return strings.NewReplacer("@commands@\n", commands.String())
}

// quote makes text a single word in every shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
