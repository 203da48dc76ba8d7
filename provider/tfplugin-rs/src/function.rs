//! Functions: `provider::NAME::FUNCTION(...)` in a configuration (Terraform 1.8 and later).
//!
//! A function is pure. Terraform may call it at any time, also before the provider is configured, as often as it likes,
//! and expects the same result for the same arguments.

use crate::{codec::Type, value::Value, wire};

/// One function.
pub trait Function: Send + Sync + 'static {
    /// What it takes and gives.
    fn signature(&self) -> Signature;

    /// Calls it. There are as many arguments as parameters, plus any number of variadic ones; each is known and not null
    /// unless its parameter says otherwise.
    ///
    /// # Errors
    /// What is wrong, and with which argument.
    fn call(&self, arguments: &[Value]) -> Result<Value, FunctionError>;
}

/// What a function takes and gives.
#[derive(Clone, Debug)]
pub struct Signature {
    /// One line.
    pub summary: String,
    /// All of it, in Markdown.
    pub description: String,
    /// The parameters, in order.
    pub parameters: Vec<Parameter>,
    /// A last parameter that may be given any number of times.
    pub variadic: Option<Parameter>,
    /// The type of the result.
    pub returns: Type,
}

impl Signature {
    /// A signature without variadic parameter.
    pub fn new(summary: impl Into<String>, parameters: impl Into<Vec<Parameter>>, returns: Type) -> Self {
        let summary = summary.into();
        Self { description: summary.clone(), summary, parameters: parameters.into(), variadic: None, returns }
    }

    /// Says more than the summary does.
    #[must_use]
    pub fn describe(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// The type of the argument at `index`; `None` beyond the last parameter of a function that is not variadic.
    pub(crate) fn parameter(&self, index: usize) -> Option<&Parameter> {
        self.parameters.get(index).or(self.variadic.as_ref())
    }

    pub(crate) fn to_wire(&self) -> wire::Function {
        wire::Function {
            parameters: self.parameters.iter().map(Parameter::to_wire).collect(),
            variadic_parameter: self.variadic.as_ref().map(Parameter::to_wire),
            r#return: Some(wire::function::Return { r#type: self.returns.to_bytes() }),
            summary: self.summary.clone(),
            description: self.description.clone(),
            description_kind: wire::StringKind::Markdown.into(),
            deprecation_message: String::new(),
        }
    }
}

/// One parameter of a function.
#[derive(Clone, Debug)]
pub struct Parameter {
    name: String,
    ty: Type,
    description: String,
    nullable: bool,
}

impl Parameter {
    /// A parameter that takes known values only.
    pub fn new(name: impl Into<String>, ty: Type, description: impl Into<String>) -> Self {
        Self { name: name.into(), ty, description: description.into(), nullable: false }
    }

    /// Takes null too.
    #[must_use]
    pub fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its type.
    pub fn value_type(&self) -> &Type {
        &self.ty
    }

    fn to_wire(&self) -> wire::function::Parameter {
        wire::function::Parameter {
            name: self.name.clone(),
            r#type: self.ty.to_bytes(),
            allow_null_value: self.nullable,
            // With an unknown argument Terraform does not call, and knows that the result is unknown.
            allow_unknown_values: false,
            description: self.description.clone(),
            description_kind: wire::StringKind::Markdown.into(),
        }
    }
}

/// Why a function gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionError {
    /// What is wrong, as a sentence.
    pub text: String,
    /// The index of the argument it is about, from 0.
    pub argument: Option<usize>,
}

impl FunctionError {
    /// A failure that is no argument's.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), argument: None }
    }

    /// A failure about one argument.
    pub fn argument(index: usize, text: impl Into<String>) -> Self {
        Self { text: text.into(), argument: Some(index) }
    }

    pub(crate) fn to_wire(&self) -> wire::FunctionError {
        let function_argument = self.argument.and_then(|index| i64::try_from(index).ok());
        wire::FunctionError { text: self.text.clone(), function_argument }
    }
}
