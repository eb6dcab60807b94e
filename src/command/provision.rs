//! provision: creates or updates the credential, and delivers it.

use crate::{
    cli::{OutputTarget, RunOptions},
    command::{announce, not_printed, today, until_stopped},
    credential::artifact::Artifact,
    diagnostics::error::{Code, Failure},
    env::Environment,
    input::{
        documents::{self, Strictness},
        request,
    },
    output_file::OutputFile,
    plan::guardrails::Guard,
    report::Report,
    run::{self, Run},
};

/// The output, checked to be writable before contacting the cluster.
enum Output {
    None,
    Stdout,
    File(OutputFile),
}

impl Output {
    fn prepare(target: Option<&OutputTarget>) -> Result<Self, Failure> {
        match target {
            None => Ok(Self::None),
            Some(OutputTarget::Stdout) => Ok(Self::Stdout),
            Some(OutputTarget::File(path)) => OutputFile::prepare(path).map(Self::File).map_err(|cause| {
                Failure::new(Code::OutputNotWritable, "preparing the output file", cause.to_string())
                    .on(path.display().to_string())
            }),
        }
    }

    fn write(self, artifact: &Artifact, report: &Report) -> Result<(), Failure> {
        const DOING: &str = "writing the credential file";

        match self {
            Self::None => Ok(()),
            Self::Stdout => report.write_stdout(&artifact.text()).map_err(|cause| not_printed(DOING, &cause)),
            Self::File(file) => file
                .commit(&artifact.text())
                .map_err(|cause| Failure::new(Code::OutputFailed, DOING, cause.to_string())),
        }
    }
}

/// Runs the command.
pub(crate) async fn run(options: &RunOptions, environment: &Environment, report: &Report) -> Result<(), Failure> {
    let (inputs, findings) = documents::load(&options.source, Strictness::Strict, environment);
    let (input, remarks) =
        request::provision(&inputs, options.publish, options.timeout_seconds, findings).map_err(Failure::input)?;
    let (request, delivery) = (&input.request, &input.delivery);
    let platform = delivery.platform.as_ref();
    let guard = Guard { guardrails: input.guardrails.limited_to(options.max_risk), today: today() };
    let budget = announce(report, Some(&request.instance), &request.connection, platform, input.timeout, remarks);
    let output = Output::prepare(options.output.as_ref())?;
    until_stopped("provision", true, report, async {
        let run = Run::connect(request, budget, report).await?.guarded(guard);
        run::provision(&run, delivery, |artifact| output.write(artifact, report)).await
    })
    .await?;
    let stays_in_cluster = options.output.is_none() && platform.is_none();
    if !stays_in_cluster {
        request.connection.limits().into_iter().for_each(|finding| report.finding(finding));
    }
    report.done(if stays_in_cluster {
        "credential tested; it is in the cluster only, because --output was not given"
    } else {
        "credential tested and delivered"
    });
    Ok(())
}
