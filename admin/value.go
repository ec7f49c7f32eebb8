package admin

import (
	"bytes"
	"encoding/json"
)

// A body that checkJSON has accepted is parsed in place. (encoding/json would
// check and copy it again at each of the five levels above a route's fields.) The
// functions here require valid JSON.

func isObject(data []byte) bool { return bytes.HasPrefix(trimSpace(data), []byte("{")) }
func isArray(data []byte) bool  { return bytes.HasPrefix(trimSpace(data), []byte("[")) }

// trimSpace removes leading white space.
func trimSpace(data []byte) []byte {
	for len(data) > 0 && (data[0] == ' ' || data[0] == '\t' || data[0] == '\r' || data[0] == '\n') {
		data = data[1:]
	}
	return data
}

// object returns the fields of a JSON object, and false for any other value.
func object(data []byte) (map[string]json.RawMessage, bool) {
	if !isObject(data) {
		return nil, false
	}
	fields := make(map[string]json.RawMessage)
	eachMember(data, func(key string, value []byte) (rest []byte, err error) {
		fields[key], rest = cutValue(value)
		return rest, nil
	})
	return fields, true
}

// array returns the elements of a JSON array, and false for any other value.
func array(data []byte) (elements []json.RawMessage, ok bool) {
	if !isArray(data) {
		return nil, false
	}
	eachMember(data, func(_ string, value []byte) (rest []byte, err error) {
		value, rest = cutValue(value)
		elements = append(elements, value)
		return rest, nil
	})
	return elements, true
}

// eachMember calls visit for each member of the object or array at the start of
// data, until one fails, and returns the rest. visit gets the member's key, if it
// has one, and the data from the value on. It returns the rest after the value.
func eachMember(data []byte, visit func(key string, value []byte) (rest []byte, err error)) (rest []byte, err error) {
	keyed := isObject(data)
	data = trimSpace(trimSpace(data)[1:])
	for data[0] != '}' && data[0] != ']' {
		var key string
		if keyed {
			var quoted []byte
			quoted, data = cutValue(data)
			key, data = unquote(quoted), trimSpace(data)[1:] // the colon
		}
		if data, err = visit(key, data); err != nil {
			return nil, err
		}
		if data = trimSpace(data); data[0] == ',' {
			data = trimSpace(data[1:])
		}
	}
	return data[1:], nil
}

// cutValue cuts data after the value at its start.
func cutValue(data []byte) (value, rest []byte) {
	data = trimSpace(data)
	end := len(data)
	switch data[0] {
	case '"':
		end = textEnd(data, 0)
	case '{', '[':
		end = 1
		for depth := 1; depth > 0; end++ {
			switch data[end] {
			case '"':
				end = textEnd(data, end) - 1
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
		}
	default:
		if i := bytes.IndexAny(data, ",]} \t\r\n"); i >= 0 {
			end = i
		}
	}
	return data[:end], data[end:]
}

// textEnd returns the end of the string that starts at i.
func textEnd(data []byte, i int) int {
	for i++; data[i] != '"'; i++ {
		if data[i] == '\\' {
			i++
		}
	}
	return i + 1
}

func unquote(quoted []byte) (text string) {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	json.Unmarshal(quoted, &text)
	return text
}
