// Renders a template as Ollama does: System is the system prompts' text, Messages are all messages.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type Message struct{ Role, Content string }

func main() {
	var given struct {
		Template string
		Messages []Message
	}
	if err := json.NewDecoder(os.Stdin).Decode(&given); err != nil {
		panic(err)
	}
	var system []string
	for _, message := range given.Messages {
		if message.Role == "system" {
			system = append(system, message.Content)
		}
	}
	values := map[string]any{"Messages": given.Messages, "System": strings.Join(system, "\n\n")}
	if err := template.Must(template.New("").Parse(given.Template)).Execute(os.Stdout, values); err != nil {
		panic(err)
	}
}
