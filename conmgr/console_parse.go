// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"slices"
	"strconv"
	"strings"
)

// verb is what a statement does.
type verb uint8

const (
	verbShow     verb = iota // a console table: command.name
	verbTarget               // command.target
	verbShutdown             // command.mode
	verbSetting              // SHOW of a PostgreSQL parameter: command.name
	verbFunction             // SELECT of one value: command.name
	verbNothing              // accepted without effect: command.tag
	verbBegin
	verbCommit
	verbRollback
	verbDeallocate // command.name, empty for all
	verbDiscard
)

// command is one statement.
type command struct {
	verb   verb
	name   string
	tag    string // of CommandComplete
	target Target
	only   *int // the number of the one instance that TARGET is about; nil: all
	mode   ShutdownMode
}

// parseCommands reads the statements of a query. Text without any statement
// gives an empty list.
func parseCommands(text string) ([]command, error) {
	tokens, err := lex(text)
	if err != nil {
		return nil, err
	}
	var out []command
	for len(tokens) > 0 {
		end := slices.IndexFunc(tokens, func(t token) bool { return t.kind == tokenEnd })
		statement := tokens
		if end >= 0 {
			statement, tokens = tokens[:end], tokens[end+1:]
		} else {
			tokens = nil
		}
		if len(statement) == 0 {
			continue
		}
		c, err := parseStatement(statement)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// parseStatement reads one statement of at least one token.
func parseStatement(t []token) (command, error) {
	if t[0].kind != tokenWord {
		return command{}, errUnknownCommand(t)
	}
	args := t[1:]
	switch word := t[0].text; word {
	case "show":
		return parseShow(t)
	case "target":
		return parseTarget(args)
	case "shutdown":
		return parseShutdown(t)
	case "select":
		return parseSelect(t)
	case "begin":
		return command{verb: verbBegin, tag: "BEGIN"}, nil
	case "start":
		if len(args) > 0 && args[0].text == "transaction" {
			return command{verb: verbBegin, tag: "START TRANSACTION"}, nil
		}
	case "commit", "end":
		return command{verb: verbCommit, tag: "COMMIT"}, nil
	case "rollback", "abort":
		return parseRollback(args), nil
	case "discard":
		return parseDiscard(t)
	case "deallocate":
		return parseDeallocate(args)
	case "set", "reset", "listen", "unlisten", "savepoint", "release":
		if len(args) > 0 {
			return command{verb: verbNothing, tag: strings.ToUpper(word)}, nil
		}
	case "close":
		if len(args) == 1 && args[0].text == "all" {
			return command{verb: verbNothing, tag: "CLOSE CURSOR ALL"}, nil
		}
	}
	return command{}, errUnknownCommand(t)
}

// parseShow reads SHOW: a table of the console, or a parameter that drivers
// ask for.
func parseShow(t []token) (command, error) {
	name := wordsOf(t[1:])
	if _, ok := consoleTables[name]; ok {
		return command{verb: verbShow, name: name, tag: "SHOW"}, nil
	}
	if name == "transaction isolation level" {
		name = "transaction_isolation"
	}
	if _, ok := settings[name]; ok {
		return command{verb: verbSetting, name: name, tag: "SHOW"}, nil
	}
	return command{}, errUnknownCommand(t)
}

// parseTarget reads what follows TARGET: attribute [INSTANCE number].
func parseTarget(args []token) (command, error) {
	if len(args) == 0 || args[0].kind == tokenSymbol {
		return command{}, failure("42601", "TARGET expects one of %s", strings.Join(targetNames[:], ", "))
	}
	target, err := ParseTarget(strings.ToLower(args[0].text))
	if err != nil {
		return command{}, failure("22023", "%s", err)
	}
	c := command{verb: verbTarget, target: target, tag: "TARGET"}
	if args = args[1:]; len(args) == 0 {
		return c, nil
	}
	if len(args) == 2 && args[0].text == "instance" {
		if number, err := strconv.Atoi(args[1].text); err == nil && number >= 0 {
			c.only = &number
			return c, nil
		}
	}
	return command{}, failure("42601", "TARGET %s expects nothing more, or INSTANCE and its number", target)
}

func parseShutdown(t []token) (command, error) {
	mode := ShutdownMode(wordsOf(t[1:]))
	switch mode {
	case ShutdownSmart, ShutdownFast, ShutdownImmediate, ShutdownRestart:
		return command{verb: verbShutdown, mode: mode, tag: "SHUTDOWN"}, nil
	}
	return command{}, failure("42601", "SHUTDOWN expects SMART, FAST, IMMEDIATE or RESTART")
}

// parseSelect reads SELECT 1 and SELECT [pg_catalog.]function(), the only
// queries there are.
func parseSelect(t []token) (command, error) {
	args := t[1:]
	if len(args) == 0 || args[0].kind != tokenWord {
		return command{}, errUnknownCommand(t)
	}
	name := strings.TrimPrefix(args[0].text, "pg_catalog.")
	if len(args) == 3 && args[1].text == "(" && args[2].text == ")" {
		name += "()"
	} else if len(args) != 1 {
		return command{}, errUnknownCommand(t)
	}
	if _, ok := functions[name]; !ok {
		return command{}, errUnknownCommand(t)
	}
	return command{verb: verbFunction, name: name, tag: "SELECT 1"}, nil
}

// parseRollback reads what follows ROLLBACK; ROLLBACK TO a savepoint does not
// end the transaction.
func parseRollback(args []token) command {
	if slices.ContainsFunc(args, func(t token) bool { return t.kind == tokenWord && t.text == "to" }) {
		return command{verb: verbNothing, tag: "ROLLBACK"}
	}
	return command{verb: verbRollback, tag: "ROLLBACK"}
}

func parseDiscard(t []token) (command, error) {
	switch what := wordsOf(t[1:]); what {
	case "all":
		return command{verb: verbDiscard, tag: "DISCARD ALL"}, nil
	case "plans", "sequences", "temp", "temporary":
		return command{verb: verbNothing, tag: "DISCARD " + strings.ToUpper(what)}, nil
	}
	return command{}, errUnknownCommand(t)
}

// parseDeallocate reads what follows DEALLOCATE: [PREPARE] name or ALL.
func parseDeallocate(args []token) (command, error) {
	if len(args) > 1 && args[0].kind == tokenWord && args[0].text == "prepare" {
		args = args[1:]
	}
	if len(args) != 1 || args[0].kind == tokenSymbol {
		return command{}, failure("42601", "DEALLOCATE expects a name or ALL")
	}
	if args[0].kind == tokenWord && args[0].text == "all" {
		return command{verb: verbDeallocate, tag: "DEALLOCATE ALL"}, nil
	}
	return command{verb: verbDeallocate, name: args[0].text, tag: "DEALLOCATE"}, nil
}

// wordsOf joins tokens with blanks; a quoted name counts as a word.
func wordsOf(t []token) string {
	words := make([]string, len(t))
	for i := range t {
		words[i] = strings.ToLower(t[i].text)
	}
	return strings.Join(words, " ")
}

// errUnknownCommand quotes the beginning of a statement that is none.
func errUnknownCommand(t []token) error {
	const most = 60
	text := []rune(strings.ToValidUTF8(wordsOf(t), "?"))
	if len(text) > most {
		text = append(text[:most], []rune("...")...)
	}
	return failure("42601", "conmgr's console does not know %q", string(text)).
		withHint("SHOW HELP lists the commands. Use a pass-through port (proxy_listen) to reach a database.")
}
