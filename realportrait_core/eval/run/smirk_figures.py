"""SMIRK's distances as figures of a record: "smirk_expression_l1" and "smirk_pose_l1" of every row that the user's folder has."""

from dataclasses import replace

from ...errors import InputError
from ..judges.estimators import parameter_errors
from ..judges.smirk import DRIVING, SmirkFolder
from ..record import CaseRecord
from .tables import first_scored


def with_smirk(record: CaseRecord, folder: SmirkFolder) -> CaseRecord:
    """The record with the L1 distances of SMIRK's parameters from the driving video's, of the rows of which the folder has some.

    Not in the table `long`, whose cases have the names of others.
    """
    if record.table == "long":
        return record
    first = first_scored(record.table)
    try:
        driving, note = folder.parameters(DRIVING, record.name, record.scored + first)
    except InputError as error:
        return replace(record, notes=(*record.notes, str(error)))
    frames, notes = dict(record.frames), [note]
    for row in folder.rows():
        if row not in frames:
            continue
        try:
            found, note = folder.parameters(row, record.name, record.scored + first)
        except InputError as error:
            notes.append(str(error))
            continue
        errors = parameter_errors(found, driving)
        frames[row] = frames[row] | {f"smirk_{metric}": values[first:] for metric, values in errors.items()}
        notes.append(note)
    return replace(record, frames=frames, notes=(*record.notes, *(note for note in notes if note is not None)))
