// SPDX-License-Identifier: Apache-2.0

package conmgr

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Type OIDs of the console's columns (pg_type.dat): there are no others.
const (
	oidText   = 25
	oidInt8   = 20
	oidFloat8 = 701
)

// column is one column of an answer.
type column struct {
	name string
	oid  uint32
}

func text(name string) column    { return column{name, oidText} }
func int8col(name string) column { return column{name, oidInt8} }

func float8col(name string) column { return column{name, oidFloat8} }

// row holds a value per column: nil is NULL, text is string, int8 is int64, float8
// is float64.
type row []any

// consoleTables are the answers of SHOW. They are an API: see the package
// comment.
var consoleTables = map[string][]column{
	"status": {text("status"), int8col("pid"), text("started"), text("version"), int8col("applications"), int8col("instances"),
		text("link_hints")},
	"instances": {int8col("number"), text("host"), text("hostaddr"), int8col("port"), text("monitoring"),
		text("heartbeat"), text("attribute"), text("status"), text("read_only"), int8col("timeline"), text("wal"),
		text("system_identifier"), float8col("rtt_ms"), int8col("heard_ms"), int8col("lost"), int8col("received"),
		text("reason"), text("why"), text("kills")},
	"applications": {int8col("id"), text("kind"), text("addr"), int8col("port"), int8col("pid"), int8col("uid"),
		text("target"), int8col("instance"), text("host"), text("connected"), text("state")},
	"config": {text("name"), text("value"), text("file"), text("default"), text("context")},
	"events": {text("at"), text("kind"), int8col("instance"), text("reason"), int8col("silence_ms"),
		int8col("applications"), text("detail")},
	"stats":   {text("name"), int8col("value")},
	"version": {text("version")},
	"help":    {text("command"), text("description")},
}

// targetColumns is the answer of TARGET.
var targetColumns = []column{int8col("number"), text("host"), text("hostaddr"), int8col("port"), text("attribute")}

// columnsOf returns the columns of a command's answer, nil when it has none.
func columnsOf(c command) []column {
	switch c.verb {
	case verbShow:
		return consoleTables[c.name]
	case verbTarget:
		return targetColumns
	case verbSetting:
		return []column{text(settings[c.name].label)}
	case verbFunction:
		return []column{functions[c.name].column}
	}
	return nil
}

// appendRowDescription appends the message that announces columns.
func appendRowDescription(b []byte, cols []column, formats []int16) []byte {
	fields := make([]pgproto3.FieldDescription, len(cols))
	for i, c := range cols {
		size := int16(-1)
		if c.oid != oidText {
			size = 8
		}
		fields[i] = pgproto3.FieldDescription{
			Name: []byte(c.name), DataTypeOID: c.oid, DataTypeSize: size, TypeModifier: -1,
			Format: formatOf(formats, i),
		}
	}
	return appendMessage(b, &pgproto3.RowDescription{Fields: fields})
}

// appendRow appends one row in the formats asked for.
func appendRow(b []byte, r row, formats []int16) []byte {
	values := make([][]byte, len(r))
	for i, v := range r {
		values[i] = encodeValue(v, formatOf(formats, i))
	}
	return appendMessage(b, &pgproto3.DataRow{Values: values})
}

// encodeValue encodes as textout and textsend, int8out and int8send, float8out
// (three decimals) and float8send do.
func encodeValue(v any, format int16) []byte {
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		return append([]byte{}, v...)
	case int64:
		if format == pgproto3.BinaryFormat {
			return binary.BigEndian.AppendUint64(nil, uint64(v))
		}
		return strconv.AppendInt(nil, v, 10)
	case float64:
		if format == pgproto3.BinaryFormat {
			return binary.BigEndian.AppendUint64(nil, math.Float64bits(v))
		}
		return strconv.AppendFloat(nil, v, 'f', 3, 64)
	}
	panic(fmt.Sprintf("conmgr: a console value of type %T", v))
}

// formatOf returns the format of column i: none given is text, one is for all.
func formatOf(formats []int16, i int) int16 {
	switch {
	case len(formats) == 1:
		return formats[0]
	case i < len(formats):
		return formats[i]
	}
	return pgproto3.TextFormat
}

// checkFormats wants no format, one for all, or one per column, each text or
// binary.
func checkFormats(formats []int16, columns int) error {
	if len(formats) > 1 && len(formats) != columns {
		return failure("08P01", "bind message has %d result formats but query has %d columns", len(formats), columns)
	}
	for _, f := range formats {
		if f != pgproto3.TextFormat && f != pgproto3.BinaryFormat {
			return failure("22023", "unsupported format code: %d", f)
		}
	}
	return nil
}

// appendMessage appends a message of ours; that it cannot be encoded is a bug.
func appendMessage(b []byte, m pgproto3.BackendMessage) []byte {
	out, err := m.Encode(b)
	if err != nil {
		panic("conmgr: encode message: " + err.Error())
	}
	return out
}

// appendError appends an ErrorResponse.
func appendError(b []byte, e *pgError) []byte {
	return appendMessage(b, &pgproto3.ErrorResponse{
		Severity: e.severity, SeverityUnlocalized: e.severity, Code: e.code,
		Message: e.message, Detail: e.detail, Hint: e.hint,
	})
}
