import numpy as np
import pytest

from medclip_keras.knowledge.sections import Section
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import openi

from ..benchmarks import labels as benchmark


def named(labeller, states):
    pairs = zip(labeller.table.names, states, strict=True)
    return {name: LabelState(state).name for name, state in pairs if state != LabelState.NOT_MENTIONED}


def test_sentences_and_report_have_separate_states(labeller):
    labels = labeller.label(
        [
            Section("indication", "Pneumothorax?"),
            Section("findings", "The heart is large. No effusion. Chest is slim."),
            Section("impression", "Possible pneumothorax."),
        ]
    )
    assert [(s.section, s.text, named(labeller, s.states)) for s in labels.sentences] == [
        ("findings", "The heart is large.", {"Cardiomegaly": "POSITIVE"}),
        ("findings", "No effusion.", {"Pleural Effusion": "NEGATIVE"}),
        ("findings", "Chest is slim.", {}),
        ("impression", "Possible pneumothorax.", {"Pneumothorax": "UNCERTAIN"}),
    ]
    assert named(labeller, labels.states) == {
        "Cardiomegaly": "POSITIVE",
        "Pleural Effusion": "NEGATIVE",
        "Pneumothorax": "UNCERTAIN",
    }
    assert labels.usable
    assert labels.states.dtype == np.int8
    assert labels.states.shape == (21,)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("No effusion. Possible effusion. Small effusion.", "POSITIVE"),
        ("Small effusion. No effusion.", "POSITIVE"),
        ("No effusion. Possible effusion.", "UNCERTAIN"),
        ("Prior effusion has resolved.", "NEGATIVE"),
        ("History of effusion.", "NEGATIVE"),
        ("No effusion.", "NEGATIVE"),
    ],
)
def test_positive_before_uncertain_before_negative(labeller, text, state):
    states = labeller.label([Section("findings", text)]).states
    assert named(labeller, states) == {"Pleural Effusion": state}


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Normal chest.", True),
        ("No acute cardiopulmonary abnormality.", True),
        ("No acute cardiopulmonary abnormality. Tip of the PICC line in the SVC.", True),
        ("The lungs are clear. The heart is normal in size.", True),
        ("The lungs are clear.", False),
        ("No pneumothorax.", False),
        ("Normal chest. Small effusion.", False),
        ("Normal chest. Possible small effusion.", False),
        ("Otherwise normal chest.", False),
    ],
)
def test_no_finding_needs_stated_normality_without_findings(labeller, text, normal):
    states = labeller.label([Section("findings", text)]).states
    expected = LabelState.POSITIVE if normal else LabelState.NOT_MENTIONED
    assert states[labeller.table.index("No Finding")] == expected


def test_sentence_keeps_no_finding_in_an_abnormal_report(labeller):
    labels = labeller.label([Section("impression", "No acute disease. Old rib fracture.")])
    column = labeller.table.index("No Finding")
    assert [s.states[column] for s in labels.sentences] == [LabelState.POSITIVE, LabelState.NOT_MENTIONED]
    assert labels.states[column] == LabelState.NOT_MENTIONED


@pytest.mark.parametrize("sections", [(), (Section("indication", "Effusion."),), (Section("findings", "…"),)])
def test_report_without_findings_is_unusable(labeller, sections):
    labels = labeller.label(sections)
    assert not labels.usable
    assert labels.sentences == ()
    assert labels.mentions == ()
    assert not labels.states.any()


def test_labels_agree_with_open_i_gold(medclip_data, labeller):
    gold = benchmark.read_gold(medclip_data / "openi", "all")
    rows = openi.report_rows(str(medclip_data / "openi" / "NLMCXR_reports_dev.tgz"))
    reports = {row.report_id: openi.read_report(row) for row in rows if row.report_id in gold}
    assert len(reports) == 3080
    states = np.stack([labeller.label(sections).states for sections in reports.values()])
    coded = np.stack([gold[report_id] for report_id in reports])
    positive = benchmark.findings_of(states, labeller.table) == LabelState.POSITIVE
    counts = benchmark.counts_of(coded, positive).sum(axis=1)  # (3, 13)
    assert benchmark.scores_of(counts.sum(axis=1))[2] > 0.925  # micro-F1; .932 when this was written
    frequent = coded.sum(axis=0) >= 20
    assert frequent.sum() == 10
    assert benchmark.scores_of(counts)[2][frequent].min() > 0.72
