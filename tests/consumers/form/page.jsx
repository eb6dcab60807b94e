// The form of an instance, as the platform shows it: with the platform's package, the published schemas, and a menu of
// presets. A preset replaces all fields, its name included, as on the platform. Fields of saved params that the schema
// forbids are removed before the form is shown.
import Ajv from 'ajv'
import React, { useState } from 'react'
import ReactDOM from 'react-dom'
import createForm from '@massdriver/forms'

const Form = createForm({ services: {} })
const root = document.getElementById('form')

const Page = ({ schema, uiSchema, params, happened }) => {
  const [formData, setFormData] = useState(params)
  happened.data = formData
  return (
    <>
      <header>
        <label htmlFor="presets">Configuration preset</label>
        <select id="presets" onChange={({ target }) => setFormData(schema.examples[target.value] ?? {})}>
          <option value="">None</option>
          {schema.examples.map(({ __name }, index) => (
            <option key={__name} value={index}>{__name}</option>
          ))}
        </select>
      </header>
      <Form
        schema={schema}
        uiSchema={uiSchema}
        formData={formData}
        formContext={{}}
        onChange={({ formData }) => setFormData(formData)}
        onSubmit={({ formData }) => { happened.submitted = formData }}
        onError={() => { happened.refused = true }}
      >
        <button id="save" type="submit">Save</button>
      </Form>
    </>
  )
}

const withoutForbidden = (schema, params) => {
  const kept = structuredClone(params)
  new Ajv({ strict: false, validateFormats: false, removeAdditional: true }).compile(schema)(kept)
  return kept
}

/** Shows the form anew, for an instance with these params. */
window.openForm = (schema, uiSchema, given) => {
  const params = withoutForbidden(schema, given)
  window.happened = {}
  ReactDOM.unmountComponentAtNode(root)
  ReactDOM.render(<Page schema={schema} uiSchema={uiSchema} params={params} happened={window.happened} />, root)
}

// A JSON pointer: root::rules::0::verbs -> /rules/0/verbs. The rest of the id names a part of the field.
const pointer = id => id.replace(/(__[a-z_]+|-label|-\d+)$/, '').split('::').slice(1).map(name => `/${name}`).join('')

const placesIn = field =>
  [...field.querySelectorAll('[id^="root"], [name^="root"]')]
    .filter(element => element.closest('.field') === field && !element.id.endsWith('__error'))
    .flatMap(element => [element.id, element.name ?? ''].map(pointer))

/** The field that an element stands in: the nearest one around it in which something of a place can be seen. */
const fieldOf = element => {
  let field = element.closest('.field')
  while (field && placesIn(field).length === 0) field = field.parentElement.closest('.field')
  return field
}

/** Every sentence of complaint, with its place, and whether it can be seen in the field of that very place. */
window.complaints = () =>
  [...document.querySelectorAll('[id^="root"][id$="__error"]')].map(sentence => {
    const at = pointer(sentence.id)
    const visible = sentence.checkVisibility() && sentence.getBoundingClientRect().height > 0
    return { pointer: at, text: sentence.textContent, beside: visible && placesIn(fieldOf(sentence)).includes(at) }
  })

/** What the browser itself does not let through: it says so where the field is, and the form hears nothing. */
window.stopped = () =>
  [...document.querySelectorAll('form :invalid')]
    .map(control => ({ at: [control.id, control.name].find(name => name?.startsWith('root')), control }))
    .filter(({ at }) => at)
    .map(({ at, control }) => ({ pointer: pointer(at), text: control.validationMessage }))

const own = (list, title) =>
  [...list.querySelectorAll(`button[title="${title}"]`)].filter(button => button.closest('.field-array') === list)

/** The button of a list, not that of a list within. */
window.listButton = (id, title, index) => {
  const list = document.getElementById(`${id}__title`).closest('.field-array')
  return own(list, title).at(index)
}
